"""Fitting heads of the scorer mini to scores of a judge.

judged.py  a head from judged chains
heads.py   the fits of both heads
fit.py     the methods: ridge regressions and Bradley-Terry models
texts.py   labelled texts, and comparisons of responses
"""
