"""load → score → embed → select → export, as one Prefect flow.

`deita select` runs it in this process; `python -m flows.cli select` is the same, for a debugger.
"""

# No `from __future__ import annotations` here: Prefect makes its form from these annotations as
# they stand.
from typing import Any

from prefect import flow

from deita_tasks import tasks
from deita_tasks.config import Advanced, Embedding, Export, Preset, Scoring, Selection, Source
from deita_tasks.plan import plan_run
from flows.steps import ONE_AT_A_TIME, Clock, choose, score_and_embed


@flow(
    name="select-subset",
    flow_run_name="select {selection.budget} of {source.name} by {preset}",
    task_runner=ONE_AT_A_TIME,
    result_serializer="json",
)
def select_subset(
    source: Source,
    export: Export,
    preset: Preset = "mini",
    scoring: Scoring = Scoring(),  # noqa: B008 - frozen, so one default may serve all runs
    embedding: Embedding = Embedding(),  # noqa: B008
    selection: Selection = Selection(),  # noqa: B008
    advanced: Advanced = Advanced(),  # noqa: B008
) -> dict[str, Any]:
    """Select the conversations of a pool that are worth fine-tuning on (DEITA, arXiv 2312.15685).

    Scores each turn's complexity and quality, multiplies, sums over turns; takes conversations from
    the best evol score down and skips what is too similar to something already taken; stops at the
    budget. Writes the subset, a decision for every row, a manifest and a report to the output
    folder. Returns the manifest, and the tasks that ran by stage.
    """
    plan = plan_run(source, preset, scoring, embedding, selection, export, advanced)
    clock = Clock()
    with clock("load"):
        pool = tasks.load(plan, source, advanced)
    done = score_and_embed(plan, pool, advanced, clock)
    groups = {
        "source": source,
        "scoring": scoring,
        "embedding": embedding,
        "selection": selection,
        "export": export,
        "advanced": advanced,
    }
    selected, facts = choose(plan, pool, done, preset, groups, clock)
    manifest = tasks.export_selection(
        pool.uri, done, selected, export.output, export.output_format, facts
    )
    return {**manifest, "tasks": {name: stage["tasks"] for name, stage in done.items()}}
