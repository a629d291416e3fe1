"""How a run is told apart and followed in Prefect's UI: its tags, and the algorithm's own log."""

import logging
from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler

from deita_tasks.config import Source
from deita_tasks.errors import DeitaError


def run_tags() -> list[str]:
    """The tags of the flow run that we are in: its preset and its pool."""
    run = FlowRunContext.get()
    return tags_of(run.parameters or {}) if run is not None else []


def tag_run() -> None:
    """Give the flow run that we are in its tags, beside those that it has."""
    run = FlowRunContext.get()
    if run is None or run.flow_run is None:
        return
    tags = sorted({*run.flow_run.tags, *run_tags()})
    with get_client(sync_client=True) as client:
        client.update_flow_run(run.flow_run.id, tags=tags)


def tags_of(parameters: Mapping[str, Any]) -> list[str]:
    """The tags of a run with these parameters: "preset:mini", "pool:pool.jsonl"."""
    found = [f"preset:{parameters['preset']}"] if parameters.get("preset") else []
    source = parameters.get("source")
    if source:
        found.append(f"pool:{Source.model_validate(source).name}")
    return found


def _within_a_run(record: logging.LogRecord) -> bool:
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def _without_traceback(record: logging.LogRecord) -> bool:
    """A failure that we know is one line in the log: it says what arrived, what was expected and
    what to do.
    """
    if record.exc_info and isinstance(record.exc_info[1], DeitaError):
        record.exc_info = record.exc_text = None
    return True


def tell_prefect() -> None:
    """Send what our modules log within a run to Prefect, at the level of Prefect's own log:
    PREFECT_LOGGING_EXTRA_LOGGERS, by default.

    What Prefect itself says of a failure that we know is said without tracebacks.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)
    ours = logging.getLogger("deita_tasks")
    if any(isinstance(handler, APILogHandler) for handler in ours.handlers):
        return
    handler = APILogHandler()
    handler.addFilter(_within_a_run)
    ours.addHandler(handler)
    ours.setLevel(
        min(logging.getLogger("prefect").level, logging.WARNING)
    )  # a terminal shows bars and no log, but warnings
