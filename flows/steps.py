"""What flows have in common: look at the models, score and embed a pool; select from it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from deita_tasks import tasks
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.selection import check_size
from deita_tasks.config import Advanced, PresetName
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


def score_and_embed(
    plan: Plan, pool: Pool, advanced: Advanced, clock: Clock
) -> dict[str, dict[str, Any]]:
    """See to it that the store holds all that a plan's stages compute of a pool; returns what each
    stage did, by name.
    """
    tasks.tag_run()
    stages = tasks.stages(plan, advanced)
    done: dict[str, dict[str, Any]] = {}
    with tasks.ShardRunner(advanced, [stage.component for stage in stages]) as crew:
        with clock("preflight"):
            work = tasks.look_ahead(stages, pool, advanced, crew)
        for stage in stages:
            with clock(stage.name):
                done[stage.name] = tasks.run_stage(stage, pool, advanced, work[stage.name], crew)
    return done


def choose(
    plan: Plan,
    pool: Pool,
    done: Mapping[str, Any],
    preset: PresetName,
    groups: Mapping[str, Any],
    clock: Clock,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Select from what has been measured; returns the selection, and what its manifest says of the
    run.

    `groups`: the flow's parameters by name. Raises TooManyBadRows or TooFewRows where the selection
    is not what they ask for.
    """
    source, selection = groups["source"], groups["selection"]
    with clock("select"):
        selected = tasks.select(plan, pool, done, groups["advanced"])
    tasks.check_floor(pool, selected["unscorable"], source.min_good_fraction)
    check_size(selected["counts"], selection)
    return selected, {
        **plan.facts(preset, groups),
        **tasks.work_facts(done),
        "seed": selection.seed,
        "timings": clock.seconds,
    }
