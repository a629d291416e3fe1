"""The models that a worker process keeps loaded, lent to one shard at a time.

A shard gives its model back between batches when its run ends or its time is up.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from prefect.context import FlowRunContext

from deita_tasks import storage
from deita_tasks.config import Advanced
from deita_tasks.embedding import load_embedder
from deita_tasks.errors import ComputeError, ModelError
from deita_tasks.models.stopping import STOP_INTERVAL, raise_if_stopped, stopped_by
from deita_tasks.models.token_counter import load_counter
from deita_tasks.presets import Spec
from deita_tasks.scoring import load_scorer
from deita_tasks.strict_json import JsonRecord
from deita_tasks.tasks.device_slots import device_slot, devices_of

LOADERS: Mapping[str, Callable[..., Any]] = {
    "scorer": load_scorer,
    "embedder": load_embedder,
    "counter": load_counter,
}

# Of this process, whatever environment a task brings along.
worker_environment: dict[str, str] = {}

# Set by a run that ends before its shards do.
stop_event: ContextVar[threading.Event | None] = ContextVar("stop_event", default=None)

_load_lock = threading.Lock()
# A model takes a whole device, and two threads may not share a tokenizer.
_compute_lock = threading.Lock()
_components: dict[str, Any] = {}  # the loaded components by their specs, the last used last


class Stopped(BaseException):
    """The run is ending. Not an Exception: nothing should retry it or blame a row for it."""


class ShardLimits(JsonRecord):
    """Limits on each shard of a run.

    seconds: that an attempt may take. slots: shards that may compute on one device at a time.
    models: that a process keeps loaded.
    """

    seconds: float | None = None
    slots: int | None = None
    models: int = 1

    @classmethod
    def from_options(cls, options: Advanced, models: int = 1) -> ShardLimits:
        """Return the limits that the run's parameters set."""
        return cls(seconds=options.shard_timeout, slots=options.device_slots, models=models)


def load_cached(kind: str, spec: Spec, fingerprint: str | None = None, models: int = 1) -> Any:
    """Return the component of a spec; this process keeps the `models` that were used last.

    A component loads its model on first use. Raises ModelError if a worker process gets another
    component than the run, whose `fingerprint` this is.
    """
    os.environ.update(worker_environment)
    name = json.dumps([kind, spec], sort_keys=True)
    with _load_lock:
        component = _components.pop(name, None)
        while len(_components) >= models:
            _components.pop(next(iter(_components)))
        if component is None:
            component = LOADERS[kind](spec["name"], **spec["options"])
            _check_fingerprint(component, fingerprint)
        _components[name] = component
        return component


def _check_fingerprint(component: Any, fingerprint: str | None) -> None:
    """Raise ModelError if a worker process loaded another component than the run's.

    Only a run detached from its flow is checked: the flow's own process made the fingerprint.
    """
    context = FlowRunContext.get()
    if fingerprint is None or context is None or not context.detached:
        return
    actual = dict(component.fingerprint())
    if storage.digest_of(actual) != fingerprint:
        raise ModelError(
            f"this worker would compute with {json.dumps(actual)}, not with the component of the "
            f"run ({fingerprint}): expected the same version of deita-tasks and the same model "
            "files on every machine"
        )


def release_models() -> None:
    """Release the models that this process keeps.

    Their memory is free once no shard works with them any more.
    """
    with _load_lock:
        _components.clear()


def raise_if_run_ends() -> None:
    """Raise Stopped if the run that this shard belongs to is ending.

    Outside a run nothing ends, and nothing is raised.
    """
    event = stop_event.get()
    if event is not None and event.is_set():
        raise Stopped("the run is ending")


@contextmanager
def borrow_model(
    kind: str, spec: Spec, limits: ShardLimits, fingerprint: str | None = None
) -> Iterator[Any]:
    """Give the component of a spec, alone on its devices.

    `raise_if_stopped` interrupts its work when the run ends or the time is up. The time starts when
    the component is ours.
    """
    deadline = float("inf")

    def check() -> None:
        """Raise Stopped if the run ends, ComputeError once the time of the shard is up."""
        raise_if_run_ends()
        if time.monotonic() > deadline:
            raise ComputeError(
                f"not done after {limits.seconds:g} s, the shard_timeout: raise it, or lower "
                "shard_rows"
            )

    with stopped_by(check):
        component = load_cached(kind, spec, fingerprint, limits.models)
        devices = devices_of(component)
        with _computing_alone() if devices else nullcontext(), device_slot(devices, limits.slots):
            if limits.seconds:
                deadline = time.monotonic() + limits.seconds
            raise_if_stopped()
            yield component


@contextmanager
def _computing_alone() -> Iterator[None]:
    """Hold this process's only place to compute; waits for it, but not after the run has ended."""
    while not _compute_lock.acquire(timeout=STOP_INTERVAL):
        raise_if_stopped()
    try:
        yield
    finally:
        _compute_lock.release()
