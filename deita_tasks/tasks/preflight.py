"""A look at the models before they work."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prefect import get_run_logger, task

from deita_tasks import storage
from deita_tasks.artifacts.pool import Pool
from deita_tasks.config import Advanced
from deita_tasks.errors import InputError, ModelError, UsageError
from deita_tasks.preflight import SAMPLE_ROWS, check
from deita_tasks.presets import Spec
from deita_tasks.tasks.caching import bind, worth_retrying
from deita_tasks.tasks.model_cache import Bounds, borrow_model
from deita_tasks.tasks.runners import ShardRunner
from deita_tasks.tasks.stages import Stage, Work, plan_stage


@task(
    name="preflight",
    task_run_name="preflight",
    retry_condition_fn=worth_retrying,
    persist_result=False,
    result_serializer="json",
)
def preflight(
    pool: str, wanted: Sequence[tuple[str, str, Spec, int]], bounds: Sequence[Any]
) -> list[dict[str, Any]]:
    """Look at the components of `wanted`, (stage, kind of component, its spec, rows to compute), on
    the first rows of a pool.

    Says in the log what it sees. Raises what will not get better by trying again: an unfit model is
    found before the first hour's work and not after it. Anything else is left to the stage, which
    tries again.
    """
    logger = get_run_logger()
    opened = Pool.open(pool)
    sample = [row for _, row in opened.read(range(min(SAMPLE_ROWS, opened.summary["good"])))]
    found = []
    for stage, kind, spec, rows in reversed(
        wanted
    ):  # the first stage's model, loaded last, stays for it
        try:
            with borrow_model(kind, spec, Bounds(*bounds)) as component:
                seen = check(stage, component, sample, rows)
        except (UsageError, InputError, ModelError):
            raise
        except Exception as error:
            logger.warning(
                "%s: the preflight came to nothing, and the stage will try again: %s", stage, error
            )
            continue
        logger.info("%s", seen)
        for warning in seen.warnings:
            logger.warning("%s", warning)
        found.append(asdict(seen))
    return found[::-1]


def look_ahead(
    stages: Sequence[Stage], pool: Pool, options: Advanced, crew: ShardRunner
) -> dict[str, Work]:
    """What each stage has to do; where that is anything, its component is looked at first, where it
    will work: by one of the workers.
    """
    work = {stage.name: plan_stage(stage, pool, options) for stage in stages}
    wanted = [
        (one.name, one.kind, one.spec, work[one.name].to_compute)
        for one in stages
        if work[one.name].missing
    ]
    if wanted:
        components = [stage.component for stage in stages if work[stage.name].missing]
        arguments = {
            "pool": storage.absolute(pool.uri),
            "wanted": wanted,
            "bounds": list(Bounds.of(options)),
        }
        crew.call(bind(preflight, options), components, arguments)
    return work
