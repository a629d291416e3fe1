"""Compare many selections side by side; no model works where the store has the scores.

deita sweep --input POOL --output DIR --budgets 1000 --budgets 6000 --similarities 0.85
"""

# No `from __future__ import annotations` here: Prefect builds its form from these annotations.
from prefect import flow

from deita_tasks import tasks
from deita_tasks.config import (
    Advanced,
    Embedding,
    Filtering,
    Grid,
    Output,
    Preset,
    Scoring,
    Selection,
    Source,
)
from deita_tasks.plan import plan_grid, plan_run
from deita_tasks.results.records import Sweep
from deita_tasks.tasks.clock import Clock
from flows.steps import FLOW_OPTIONS, form_order, open_pool, run_facts, score_and_embed


@form_order("source", "grid", "output", "preset")
@flow(
    name="sweep-selections",
    flow_run_name=tasks.name_run("sweep {source.name} by {preset}"),
    **FLOW_OPTIONS,
)
def sweep_selections(
    source: Source,
    output: Output,
    preset: Preset = "mini",
    scoring: Scoring = Scoring(),  # noqa: B008 - frozen, so all runs may share the default
    embedding: Embedding = Embedding(),  # noqa: B008
    filtering: Filtering = Filtering(),  # noqa: B008
    grid: Grid = Grid(),  # noqa: B008
    advanced: Advanced = Advanced(),  # noqa: B008
) -> Sweep:
    """Compare strategies, limits and budgets over one pool.

    Scores and embeds what the store lacks. Then makes and measures every selection of the grid:
    mean evol score, coverage of the pool, redundancy, overlap with the others, and the same for
    random selections of equal size. Writes sweep.csv, overlap.csv, sweep.html and a manifest to
    the output folder.

    The result has the manifest's fields and the table.
    """
    output = tasks.in_run_folder(output)
    selection = Selection(budget=max(grid.budgets), evaluation="all", rank_by=grid.rank_by)
    plan = plan_run(source, preset, scoring, embedding, selection, output, advanced, filtering)
    plan = plan_grid(plan, grid)
    clock = Clock()
    with open_pool(plan, source, advanced, clock) as pool:
        stage_results = score_and_embed(plan, pool, advanced, clock)
        facts = run_facts(
            plan,
            preset,
            stage_results,
            clock,
            source=source,
            scoring=scoring,
            embedding=embedding,
            filtering=filtering,
            grid=grid,
            output=output,
            advanced=advanced,
        )
        return tasks.export_sweep(pool, stage_results, grid, output.output, facts, plan, advanced)
