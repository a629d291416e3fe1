"""Every Prefect task: the stages with caching, retries and progress around them. The one package
here that imports Prefect.

    load           a pool from files                     loading.py
    stages, run_stage   scores and embeddings            measuring.py
    look_ahead     a look at the models first            preflight.py
    select, solve  which rows, and at which limit        selecting.py
    export_selection, compare_selections                 exporting.py
    announce       an event for whoever waits for a new selection   announcing.py

Around them: cache keys, retries, where results are remembered (cached.py); where shards are
computed (runners.py), by a model that is held (holding.py) on a device that is shared (limits.py);
how a run is told apart and followed in the UI (telling.py).
"""

from deita_tasks.tasks.events import announce
from deita_tasks.tasks.exporting import compare_selections, export_selection, work_facts
from deita_tasks.tasks.loading import check_floor, load
from deita_tasks.tasks.preflight import look_ahead
from deita_tasks.tasks.run_context import tag_run, tell_prefect
from deita_tasks.tasks.runners import ShardRunner
from deita_tasks.tasks.selecting import select, selection_digest, solve
from deita_tasks.tasks.stages import run_stage, stages

tell_prefect()  # here, since every worker imports this package too

__all__ = [
    "ShardRunner",
    "announce",
    "check_floor",
    "compare_selections",
    "export_selection",
    "load",
    "look_ahead",
    "run_stage",
    "select",
    "selection_digest",
    "solve",
    "stages",
    "tag_run",
    "work_facts",
]
