"""Every Prefect task. Only this package and `flows` import Prefect.

loading.py        load a pool from files
stages.py         score and embed, shard by shard
lazy.py           the same in rounds, only what a selection needs
preflight.py      try the models before they work
cutting.py        cut long rows at a turn
filtering.py      leave out rows that no selection may keep
selecting.py      which rows, and at which limit
exporting.py      write results
aligning.py       train a model
comparing.py      train the arms of a comparison, and write it
measuring.py      measure the models of a comparison
training_scorer.py  plan, fit, measure and write a scorer
evolving.py       rewrite and judge its training data
approval.py       ask a person about a new version
publishing.py     point `latest` to it
events.py         announce it

caching.py        cache keys, retries, where results are kept
runners.py        threads, processes, Dask or Ray
hosts.py          what each host of a cluster has to have
model_cache.py    the model that a worker keeps loaded
device_slots.py   runs that share a GPU take turns
clock.py          seconds by stage
run_context.py    tags and log of a run
run_name.py       its name, and the folder named after it
ui_artifacts.py   what a run shows in Prefect's UI
assets.py         what a run makes, as Prefect assets
secrets.py        API keys from Prefect Secret blocks
"""

from deita_tasks.tasks.aligning import (
    check_alignment,
    export_model,
    prepare_preferences,
    prepare_training,
    train,
)
from deita_tasks.tasks.approval import ask_to_publish, awaited_version, check_can_ask
from deita_tasks.tasks.comparing import export_comparison, plan_comparison, train_arms
from deita_tasks.tasks.cutting import cut_turns
from deita_tasks.tasks.evolving import make_chains
from deita_tasks.tasks.exporting import export_selection, export_sweep, subset
from deita_tasks.tasks.filtering import exclude
from deita_tasks.tasks.lazy import evaluate_lazily, new_rows
from deita_tasks.tasks.loading import check_good_fraction, open_pool
from deita_tasks.tasks.measuring import answer_prompts, judge_answers, measure_arms
from deita_tasks.tasks.preflight import check_models
from deita_tasks.tasks.publishing import publish
from deita_tasks.tasks.run_context import set_up_logging, tag_run
from deita_tasks.tasks.run_name import in_run_folder, name_run
from deita_tasks.tasks.runners import ShardRunner
from deita_tasks.tasks.secrets import enable_secret_blocks
from deita_tasks.tasks.selecting import select, selection_digest, solve
from deita_tasks.tasks.stages import StageResult, StageResults, list_stages, plan_stage, run_stage
from deita_tasks.tasks.training_scorer import (
    export_scorer,
    fit_scorer,
    measure_scorer,
    plan_scorer,
    show_estimate,
)

# Here, since every worker imports this package too.
enable_secret_blocks()
set_up_logging()

__all__ = [
    "ShardRunner",
    "StageResult",
    "StageResults",
    "answer_prompts",
    "ask_to_publish",
    "awaited_version",
    "check_alignment",
    "check_can_ask",
    "check_good_fraction",
    "check_models",
    "cut_turns",
    "evaluate_lazily",
    "exclude",
    "export_comparison",
    "export_model",
    "export_scorer",
    "export_selection",
    "export_sweep",
    "fit_scorer",
    "in_run_folder",
    "judge_answers",
    "list_stages",
    "make_chains",
    "measure_arms",
    "measure_scorer",
    "name_run",
    "new_rows",
    "open_pool",
    "plan_comparison",
    "plan_scorer",
    "plan_stage",
    "prepare_preferences",
    "prepare_training",
    "publish",
    "run_stage",
    "select",
    "selection_digest",
    "show_estimate",
    "solve",
    "subset",
    "tag_run",
    "train",
    "train_arms",
]
