"""The flow run in Prefect's UI: its tags, and the log lines of our modules."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler

from deita_tasks.config import Comparison, Source, Training
from deita_tasks.errors import DeitaError


class Tag(NamedTuple):
    """The first part of a tag, and the group of parameters whose name is the second."""

    name: str
    group: Any


TAGS = {
    "source": Tag("pool", Source),
    "training": Tag("model", Training),
    "comparison": Tag("selection", Comparison),
}


def run_tags() -> list[str]:
    """Return the tags of the current flow run, such as its preset and its pool.

    [] outside a run.
    """
    context = FlowRunContext.get()
    return tags_of(context.parameters or {}) if context is not None else []


def tag_run(flow: Flow[..., Any], run: FlowRun, state: State) -> None:
    """Add `tags_of` its parameters to the tags of a flow run: a hook of every flow."""
    defaults = inspect.signature(flow.fn).parameters.values()
    parameters = {default.name: default.default for default in defaults} | run.parameters
    with suppress(TypeError, ValueError, AttributeError):  # of parameters that the run refuses
        run.tags = sorted({*run.tags, *tags_of(parameters)})
    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, tags=run.tags)


def tags_of(parameters: Mapping[str, Any]) -> list[str]:
    """Return the tags of a run with these parameters: "preset:mini", "pool:pool.jsonl".

    A training has its base model as "model:", a comparison its selection. Groups may be given as
    mappings. What is left out has no tag.
    """
    tags = []
    preset = parameters.get("preset")
    if is_given(preset):
        tags.append(f"preset:{preset}")
    for name, tag in TAGS.items():
        fields: Any = parameters.get(name)
        if is_given(fields):
            group = tag.group.model_construct(**dict(fields))
            tags.append(f"{tag.name}:{group.name}")
    return tags


def is_given(value: Any) -> bool:
    """Return whether a parameter has a value or a default."""
    return value is not None and value is not inspect.Parameter.empty


def _is_in_run(record: logging.LogRecord) -> bool:
    """Return whether a log line belongs to a run: Prefect refuses lines from outside one."""
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
