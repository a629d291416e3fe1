"""Load → score → embed → select → export, as one Prefect flow.

`deita select` runs it in this process; so does `python -m flows.cli select`, for a debugger.
"""

# No `from __future__ import annotations` here: Prefect builds its form from these annotations.
from prefect import flow

from deita_tasks import tasks
from deita_tasks.config import (
    Advanced,
    Embedding,
    Export,
    Filtering,
    Preset,
    Scoring,
    Selection,
    Source,
)
from deita_tasks.plan import plan_run
from deita_tasks.results.records import Subset
from deita_tasks.tasks.clock import Clock
from flows.steps import FLOW_OPTIONS, choose, form_order, open_pool, run_facts, score_and_embed


@form_order("source", "selection", "export", "preset")
@flow(
    name="select-subset",
    flow_run_name=tasks.name_run("select {selection.budget} of {source.name} by {preset}"),
    **FLOW_OPTIONS,
)
def select_subset(
    source: Source,
    export: Export,
    preset: Preset = "mini",
    scoring: Scoring = Scoring(),  # noqa: B008 - frozen, so all runs may share the default
    embedding: Embedding = Embedding(),  # noqa: B008
    filtering: Filtering = Filtering(),  # noqa: B008
    selection: Selection = Selection(),  # noqa: B008
    advanced: Advanced = Advanced(),  # noqa: B008
) -> Subset:
    """Select the conversations of a pool that are worth fine-tuning on (DEITA, arXiv 2312.15685).

    Scores the complexity and quality of each turn, multiplies them and sums over turns. Takes
    conversations from the best evol score down, skips those too similar to one already selected,
    and stops at the budget. Writes the subset, a decision for every row, a manifest and a report
    to the output folder.

    The result has the manifest's fields, the tasks by stage, and the decisions.
    """
    export = tasks.in_run_folder(export)
    plan = plan_run(source, preset, scoring, embedding, selection, export, advanced, filtering)
    clock = Clock()
    with open_pool(plan, source, advanced, clock) as pool:
        stage_results = score_and_embed(plan, pool, advanced, clock)
        summary = choose(plan, pool, stage_results, source, selection, advanced, clock)
        models = {"scoring": scoring, "embedding": embedding, "filtering": filtering}
        groups = {"source": source, **models, "selection": selection, "export": export}
        facts = run_facts(plan, preset, stage_results, clock, **groups, advanced=advanced)
        return tasks.export_selection(
            pool,
            stage_results,
            summary,
            export.output,
            export.subset_options(),
            facts,
            selection.seed,
        )
