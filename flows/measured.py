"""What every flow begins with: load the pool, look at the models, score and embed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from deita_tasks import tasks
from deita_tasks.config import Advanced, Source
from deita_tasks.plan import Plan
from deita_tasks.pool import Pool

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


def measured(plan: Plan, source: Source, advanced: Advanced, clock: Clock) -> tuple[Pool, dict[str, dict[str, Any]]]:
    """The pool of a plan, with all that its stages compute of it in the store: (pool, what each stage did, by name)."""
    with clock("load"):
        pool = tasks.load(plan, source, advanced)
    stages = tasks.stages(plan, advanced)
    with clock("preflight"):
        work = tasks.look_ahead(stages, pool, advanced)
    done: dict[str, dict[str, Any]] = {}
    for stage in stages:
        with clock(stage.name):
            done[stage.name] = tasks.run_stage(stage, pool, advanced, work[stage.name])
    return pool, done
