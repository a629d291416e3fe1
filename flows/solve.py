"""Find the similarity limit that fills a budget; no model works where the store has the scores.

deita solve --input POOL --budget 6000
"""

# No `from __future__ import annotations` here: Prefect builds its form from these annotations.
from prefect import flow

from deita_tasks import tasks
from deita_tasks.config import (
    Advanced,
    Budget,
    Embedding,
    Filtering,
    Preset,
    Scoring,
    Selection,
    Source,
)
from deita_tasks.plan import plan_run
from deita_tasks.results.records import LimitSolution
from deita_tasks.tasks.clock import Clock
from flows.steps import FLOW_OPTIONS, open_pool, score_and_embed


@flow(
    name="solve-limit",
    flow_run_name=tasks.name_run("solve for {budget.budget} of {source.name} by {preset}"),
    **FLOW_OPTIONS,
)
def solve_for_budget(
    source: Source,
    preset: Preset = "mini",
    scoring: Scoring = Scoring(),  # noqa: B008 - frozen, so all runs may share the default
    embedding: Embedding = Embedding(),  # noqa: B008
    filtering: Filtering = Filtering(),  # noqa: B008
    budget: Budget = Budget(),  # noqa: B008
    advanced: Advanced = Advanced(),  # noqa: B008
) -> LimitSolution:
    """Find the smallest max_similarity, so the most diverse selection, that fills the budget.

    Scores and embeds what the store lacks. Returns {max_similarity, kept, candidates}: `kept` of
    `candidates` conversations at that limit, below the budget only if even a limit of 1 selects
    fewer.
    """
    selection = Selection(budget=budget.budget, evaluation="all", rank_by=budget.rank_by)
    plan = plan_run(source, preset, scoring, embedding, selection, None, advanced, filtering)
    with open_pool(plan, source, advanced, Clock()) as pool:
        stage_results = score_and_embed(plan, pool, advanced, Clock())
        return tasks.solve(plan, pool, stage_results, budget, advanced)
