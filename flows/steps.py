"""Steps that the flows share: score and embed a pool, and select from it."""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from inspect import Parameter
from typing import Any, TypeVar

from prefect.task_runners import ThreadPoolTaskRunner

from deita_tasks import tasks
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_strata import strata_of
from deita_tasks.artifacts.selection import SelectionSummary, check_size
from deita_tasks.config import Advanced, Group, PresetName, Selection, Source
from deita_tasks.manifest import RowsByStage, RunFacts
from deita_tasks.plan import Plan
from deita_tasks.tasks.clock import Clock

log = logging.getLogger("deita_tasks.steps")  # Prefect shows the log of this name

FlowT = TypeVar("FlowT")

# Of every flow. One model uses all cores of a machine: shards are computed one after the other.
FLOW_OPTIONS: Any = {
    "task_runner": ThreadPoolTaskRunner(max_workers=1),
    "result_serializer": "json",
    "on_running": [tasks.tag_run],
    "on_failure": [tasks.tag_run],  # of parameters that are wrong, before it was running
}


def form_order(*first: str) -> Callable[[FlowT], FlowT]:
    """Let Prefect's form begin with these parameters of a flow. Calls keep their own order.

    The form is made of the signature of the flow, a call is bound to that of its function.
    """

    def order(flow: FlowT) -> FlowT:
        decorated: Any = flow
        parameters = inspect.signature(decorated.fn).parameters
        names = dict.fromkeys([*first, *parameters])
        by_keyword = [parameters[name].replace(kind=Parameter.KEYWORD_ONLY) for name in names]
        decorated.__signature__ = inspect.Signature(by_keyword)
        return flow

    return order


@contextmanager
def open_pool(plan: Plan, source: Source, advanced: Advanced, clock: Clock) -> Iterator[Pool]:
    """Give the pool without what filters leave out; `gc` keeps all that the run needs.

    Reads the files only if the store does not have the pool.
    """
    with ExitStack() as run:
        with clock("load"):
            pool = run.enter_context(tasks.open_pool(plan, source, advanced))
        if plan.filters.are_set:
            with clock("filter"):
                pool = run.enter_context(tasks.cut_turns(plan, pool, advanced))
                pool = tasks.exclude(plan, pool, advanced)
        yield pool


def score_and_embed(
    plan: Plan, pool: Pool, advanced: Advanced, clock: Clock, previous: str | None = None
) -> tasks.StageResults:
    """Compute the scores and vectors of a pool that the store lacks; return the result by stage.

    Everything, or what the selection needs. previous: an earlier result, with whose rows the new
    ones are compared.
    """
    strata_of(pool, plan.selector)  # a column or mix that does not fit is found before any work
    stages = tasks.list_stages(plan, advanced)
    with tasks.ShardRunner(advanced, [stage.component for stage in stages]) as runner:

        def check(missing: Mapping[str, int]) -> None:
            with clock("preflight"):
                tasks.check_models(stages, missing, pool, advanced, runner)

        if plan.is_lazy:
            new_rows = tasks.new_rows(pool, previous)
            return tasks.evaluate_lazily(
                stages, pool, plan.selector, advanced, runner, clock, new_rows, check
            )
        if plan.evaluation == "lazy":
            log.info("every score and vector is computed: %s", plan.why_all)
        plans = {stage.name: tasks.plan_stage(stage, pool, advanced) for stage in stages}
        check({stage: shards.rows_to_compute for stage, shards in plans.items()})
        results = {}
        for stage in stages:
            with clock(stage.name):
                shards = plans[stage.name]
                results[stage.name] = tasks.run_stage(stage, pool, advanced, shards, runner)
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
    shares = {stage: result.share for stage, result in stage_results.items()}
    tasks.check_good_fraction(
        pool, summary.unscorable, source.min_good_fraction, shares, summary.counts.excluded
    )
    check_size(summary.counts, selection)
    return summary


def run_facts(
    plan: Plan, preset: PresetName, stage_results: tasks.StageResults, clock: Clock, **groups: Group
) -> RunFacts:
    """Return what a manifest says of the run. groups: the flow's parameters by name."""
    computed = {stage: result.computed for stage, result in stage_results.items()}
    reused = {stage: result.reused for stage, result in stage_results.items()}
    skipped = {stage: result.skipped for stage, result in stage_results.items()}
    return RunFacts(
        preset=preset,
        parameters={name: dict(group) for name, group in groups.items()},
        models=plan.models(),
        fingerprints=plan.fingerprints(),
        languages=plan.languages(),
        evaluation="lazy" if plan.is_lazy else "all",
        computed=RowsByStage(**computed),
        reused=RowsByStage(**reused),
        skipped=RowsByStage(**skipped),
        timings=clock.seconds,
        passed_over=plan.passed_over,
    )
