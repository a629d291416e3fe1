"""Try the models of a run before they work, where they will work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from prefect import get_run_logger, task
from pydantic import JsonValue

from deita_tasks import storage
from deita_tasks.artifacts.pool import Pool
from deita_tasks.config import Advanced
from deita_tasks.conversations import Conversation
from deita_tasks.errors import ServerError
from deita_tasks.preflight import SAMPLE_ROWS, check, sample_warnings
from deita_tasks.presets import Spec
from deita_tasks.scoring.served import ServedScorer
from deita_tasks.tasks.caching import NOT_WORTH_RETRYING, bind, is_worth_retrying
from deita_tasks.tasks.model_cache import ShardLimits, borrow_model
from deita_tasks.tasks.runners import ShardRunner
from deita_tasks.tasks.stages import Stage


class ComponentToCheck(NamedTuple):
    """A component of a stage, and the rows that it has to compute."""

    stage: str
    kind: str
    spec: Spec
    rows: int


@task(
    name="preflight",
    task_run_name="preflight",
    retry_condition_fn=is_worth_retrying,
    persist_result=False,
    result_serializer="json",
)
def preflight(
    pool: str, components: Sequence[Sequence[Any]], limits: Mapping[str, JsonValue]
) -> list[dict[str, Any]]:
    """Check `components` (the fields of ComponentToCheck) on the first rows of a pool.

    Logs what it sees. Raises errors that no retry mends, and those of a server, so an unfit model
    or a missing server is found before the first hour's work. Leaves any other error to the stage,
    which retries.
    """
    logger = get_run_logger()
    sample = read_first_rows(Pool.open(pool))
    checks = []
    languages = {}
    for fields in reversed(components):  # the first stage's model, loaded last, stays loaded
        stage, kind, spec, rows_to_compute = ComponentToCheck(*fields)
        try:
            with borrow_model(kind, spec, ShardLimits.model_validate(limits)) as component:
                if component.languages:
                    languages[stage] = component.languages
                result = check(stage, component, sample, rows_to_compute, component.PROBED)
        except (*NOT_WORTH_RETRYING, ServerError):
            raise
        except Exception as error:
            logger.warning("%s: preflight failed, the stage will retry: %s", stage, error)
            continue
        logger.info("%s", result)
        for warning in result.warnings:
            logger.warning("%s", warning)
        checks.append(asdict(result))
    for warning in sample_warnings(sample, languages):
        logger.warning("%s", warning)
    return checks[::-1]


def read_first_rows(pool: Pool) -> list[Conversation]:
    """Return the first good rows of a pool, SAMPLE_ROWS at most."""
    rows = range(min(SAMPLE_ROWS, pool.summary.good))
    return [conversation for _, conversation in pool.read(rows)]


def check_models(
    stages: Sequence[Stage],
    missing_rows: Mapping[str, int],
    pool: Pool,
    options: Advanced,
    runner: ShardRunner,
) -> None:
    """Check the component of each stage that has something to compute, on one of the workers.

    missing_rows: by stage, the rows that the store lacks.

    Servers come first: a missing one shows within seconds, before a model loads.
    """
    busy = [stage for stage in stages if missing_rows[stage.name]]
    busy.sort(key=lambda stage: isinstance(stage.component, ServedScorer))  # the last is the first
    if not busy:
        return
    components = [
        ComponentToCheck(stage.name, stage.kind, stage.spec, missing_rows[stage.name])
        for stage in busy
    ]
    arguments = {
        "pool": storage.absolute(pool.uri),
        "components": components,
        "limits": ShardLimits.from_options(options).to_dict(),
    }
    runner.call(bind(preflight, options), [stage.component for stage in busy], arguments)
