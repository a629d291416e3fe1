"""Steps that the flows share: score and embed a pool, and select from it."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from deita_tasks import tasks
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.selection import SelectionSummary, check_size
from deita_tasks.config import Advanced, Group, PresetName, Selection, Source
from deita_tasks.manifest import RowsByStage, RunFacts
from deita_tasks.plan import Plan

# One model uses all cores of a machine, so shards are computed one after the other.
ONE_AT_A_TIME: Any = ThreadPoolTaskRunner(max_workers=1)


class Clock:
    """Seconds of wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 3)


@contextmanager
def open_pool(plan: Plan, source: Source, advanced: Advanced, clock: Clock) -> Iterator[Pool]:
    """Give the pool, loaded if the store does not have it; `gc` keeps all that the run needs."""
    with ExitStack() as run:
        with clock("load"):
            pool = run.enter_context(tasks.open_pool(plan, source, advanced))
        yield pool


def score_and_embed(
    plan: Plan, pool: Pool, advanced: Advanced, clock: Clock
) -> dict[str, tasks.StageResult]:
    """Compute the scores and vectors of a pool that the store lacks; return the result by stage."""
    tasks.tag_run()
    stages = tasks.list_stages(plan, advanced)
    results = {}
    with tasks.ShardRunner(advanced, [stage.component for stage in stages]) as runner:
        with clock("preflight"):
            plans = {stage.name: tasks.plan_stage(stage, pool, advanced) for stage in stages}
            tasks.check_models(stages, plans, pool, advanced, runner)
        for stage in stages:
            with clock(stage.name):
                results[stage.name] = tasks.run_stage(
                    stage, pool, advanced, plans[stage.name], runner
                )
    return results


def choose(
    plan: Plan,
    pool: Pool,
    stage_results: tasks.StageResults,
    source: Source,
    selection: Selection,
    advanced: Advanced,
    clock: Clock,
) -> SelectionSummary:
    """Select from what the stages have computed.

    Raises TooManyBadRows or TooFewRows if the selection is not what the parameters require.
    """
    with clock("select"):
        summary = tasks.select(plan, pool, stage_results, advanced)
    tasks.check_good_fraction(pool, summary.unscorable, source.min_good_fraction)
    check_size(summary.counts, selection)
    return summary


def run_facts(
    plan: Plan,
    preset: PresetName,
    stage_results: tasks.StageResults,
    clock: Clock,
    **groups: Group,
) -> RunFacts:
    """Return what a manifest says of the run. groups: the flow's parameters by name."""
    computed = {stage: result.computed for stage, result in stage_results.items()}
    reused = {stage: result.reused for stage, result in stage_results.items()}
    return RunFacts(
        preset=preset,
        parameters={name: dict(group) for name, group in groups.items()},
        models=plan.models(),
        fingerprints=plan.fingerprints(),
        languages=plan.languages(),
        computed=RowsByStage(**computed),
        reused=RowsByStage(**reused),
        timings=clock.seconds,
        passed_over=plan.passed_over,
    )
