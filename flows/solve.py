"""The limit that yields a wanted number of conversations: no model work where a selection has been
made before.

deita solve --input POOL --budget 6000
"""

# No `from __future__ import annotations` here: Prefect makes its form from these annotations as
# they stand.
from typing import Any

from prefect import flow

from deita_tasks import tasks
from deita_tasks.config import Advanced, Budget, Embedding, Preset, Scoring, Selection, Source
from deita_tasks.plan import plan_run
from flows.steps import ONE_AT_A_TIME, Clock, score_and_embed


@flow(
    name="solve-limit",
    flow_run_name="solve for {budget.budget} of {source.name} by {preset}",
    task_runner=ONE_AT_A_TIME,
    result_serializer="json",
)
def solve_for_budget(
    source: Source,
    preset: Preset = "mini",
    scoring: Scoring = Scoring(),  # noqa: B008 - frozen, so one default may serve all runs
    embedding: Embedding = Embedding(),  # noqa: B008
    budget: Budget = Budget(),  # noqa: B008
    advanced: Advanced = Advanced(),  # noqa: B008
) -> dict[str, Any]:
    """Find the smallest max_similarity, and so the most diverse selection, that still yields the
    budget.

    Scores and embeds what the store does not hold yet. Returns {max_similarity, kept, candidates}:
    `kept` conversations of `candidates` at that limit, fewer than the budget only where even a
    limit of 1 yields fewer.
    """
    plan = plan_run(
        source, preset, scoring, embedding, Selection(budget=budget.budget), None, advanced
    )
    pool = tasks.load(plan, source, advanced)
    done = score_and_embed(plan, pool, advanced, Clock())
    return tasks.solve(plan, pool, done, budget.budget, advanced)
