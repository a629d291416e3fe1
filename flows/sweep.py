"""Many selections from one store, side by side: no model work where a selection has been made
before.

deita sweep --input POOL --output DIR --budgets 1000 --budgets 6000 --similarities 0.85
--similarities 0.9
"""

# No `from __future__ import annotations` here: Prefect makes its form from these annotations as
# they stand.
from typing import Any

from prefect import flow

from deita_tasks import tasks
from deita_tasks.config import Advanced, Embedding, Grid, Output, Preset, Scoring, Selection, Source
from deita_tasks.plan import plan_run
from flows.steps import ONE_AT_A_TIME, Clock, score_and_embed


@flow(
    name="sweep-selections",
    flow_run_name="sweep {source.name} by {preset}",
    task_runner=ONE_AT_A_TIME,
    result_serializer="json",
)
def sweep_selections(
    source: Source,
    output: Output,
    preset: Preset = "mini",
    scoring: Scoring = Scoring(),  # noqa: B008 - frozen, so one default may serve all runs
    embedding: Embedding = Embedding(),  # noqa: B008
    grid: Grid = Grid(),  # noqa: B008
    advanced: Advanced = Advanced(),  # noqa: B008
) -> dict[str, Any]:
    """Compare strategies, limits and budgets over one pool.

    Scores and embeds what the store does not hold yet, then makes every selection of the grid and
    measures it: mean evol score, how well it covers the pool, how much it repeats itself, what it
    shares with the others, and the same for random selections of the same sizes. Writes sweep.csv,
    overlap.csv, sweep.html and a manifest to the output folder. Returns the manifest, with the
    table.
    """
    plan = plan_run(
        source, preset, scoring, embedding, Selection(budget=max(grid.budgets)), output, advanced
    )
    clock = Clock()
    with clock("load"):
        pool = tasks.load(plan, source, advanced)
    done = score_and_embed(plan, pool, advanced, clock)
    groups = {
        "source": source,
        "scoring": scoring,
        "embedding": embedding,
        "grid": grid,
        "output": output,
        "advanced": advanced,
    }
    facts = {**plan.facts(preset, groups), **tasks.work_facts(done), "timings": clock.seconds}
    return tasks.compare_selections(
        pool.uri, done, grid.model_dump(mode="json"), output.output, facts, advanced.device
    )
