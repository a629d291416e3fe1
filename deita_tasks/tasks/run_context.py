"""The flow run in Prefect's UI: its tags, and the log lines of our modules."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler

from deita_tasks.config import Source
from deita_tasks.errors import DeitaError


def run_tags() -> list[str]:
    """Return the tags of the current flow run: its preset and its pool."""
    context = FlowRunContext.get()
    return tags_of(context.parameters or {}) if context is not None else []


def tag_run() -> None:
    """Add `run_tags` to the tags of the current flow run."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    tags = sorted({*context.flow_run.tags, *run_tags()})
    with get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, tags=tags)


def tags_of(parameters: Mapping[str, Any]) -> list[str]:
    """Return the tags of a run with these parameters: "preset:mini", "pool:pool.jsonl"."""
    tags = []
    if parameters.get("preset"):
        tags.append(f"preset:{parameters['preset']}")
    if parameters.get("source"):
        tags.append(f"pool:{Source.model_validate(parameters['source']).name}")
    return tags


def _is_in_run(record: logging.LogRecord) -> bool:
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def _drop_traceback(record: logging.LogRecord) -> bool:
    """Shorten a DeitaError to one line: it says what arrived, what was expected, what to do."""
    if record.exc_info and isinstance(record.exc_info[1], DeitaError):
        record.exc_info = record.exc_text = None
    return True


def set_up_logging() -> None:
    """Send the log of our modules within a run to Prefect, at the level of Prefect's own log.

    As PREFECT_LOGGING_EXTRA_LOGGERS does, but by default. Prefect's own lines on a DeitaError lose
    their traceback.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_drop_traceback)
    logger = logging.getLogger("deita_tasks")
    if any(isinstance(handler, APILogHandler) for handler in logger.handlers):
        return
    handler = APILogHandler()
    handler.addFilter(_is_in_run)
    logger.addHandler(handler)
    # A terminal shows progress bars instead of the log, but warnings too.
    logger.setLevel(min(logging.getLogger("prefect").level, logging.WARNING))
