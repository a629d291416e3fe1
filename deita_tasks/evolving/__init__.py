"""Scorers of one's own: rewrite texts step by step, let a judge score each chain, fit a model.

chains.py     a seed, its rewrites, and their scores
templates.py  the prompts, as files that a user may replace
checks.py     what is wrong with a rewrite
replies.py    a model's replies, each paid for once
limits.py     requests and tokens a minute, and a cap on what a run pays for
roles.py      the model that rewrites, and the judge
evolve.py     a chain of rewrites
judge.py      scores of all texts of a chain, from one request
estimate.py   requests and tokens before anything is requested
seeds.py      which conversations a training set begins with
seed_files.py the files that they are read from, and those with labels
data_set.py   the judged chains as training data
agreement.py  how well scores agree with the judge's
evaluation.py a trained scorer beside other scorers
beside.py     which scorers these are
shards.py     chains in the store
fit.py        a base model's training rows, and the checkpoint that comes out
mini.py       a head of the scorer mini, in place of a base model
report.py     calibration, chains side by side
result.py     the output folder, its card and manifest
"""
