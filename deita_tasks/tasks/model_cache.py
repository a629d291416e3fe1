"""The model that a worker process holds: loaded once, for one shard at a time, and let go of
between batches when a run is to end.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

from prefect.context import FlowRunContext

from deita_tasks import storage
from deita_tasks.config import Advanced
from deita_tasks.embedding import load_embedder
from deita_tasks.errors import ComputeError, ModelError
from deita_tasks.models.stopping import may_stop, stopped_by
from deita_tasks.presets import Spec
from deita_tasks.scoring import load_scorer
from deita_tasks.tasks.device_slots import device_slot, devices_of

LOADERS: Mapping[str, Callable[..., Any]] = {"scorer": load_scorer, "embedder": load_embedder}

own_environment: dict[str, str] = {}  # of this process, whatever environment a task brings along
stopping: ContextVar[threading.Event | None] = ContextVar(
    "stopping", default=None
)  # set by the run when it ends before its shards do

_loading = threading.Lock()
_computing = (
    threading.Lock()
)  # a model takes a whole device, and its tokenizer may not be used by two threads at a time
_held: dict[str, Any] = {}  # what a component was made of -> it; one at most


class Stopped(BaseException):
    """The run is ending. No Exception: nothing is to try again or to make a row's problem of it."""


class Bounds(NamedTuple):
    """What a run says of each of its shards: seconds that an attempt may take, and how many may
    compute on one device at a time.
    """

    seconds: float | None = None
    slots: int | None = None

    @classmethod
    def of(cls, options: Advanced) -> "Bounds":
        """As the parameters say."""
        return cls(options.shard_timeout, options.device_slots)


def component_of(stage: str, spec: Spec, fingerprint: str | None = None) -> Any:
    """The component of a spec; the next one that is asked for takes its place. It loads its model
    when it is first used.

    Raises ModelError where another process than the run's own finds another component under the
    same name: `fingerprint` is the run's.
    """
    os.environ.update(own_environment)
    made_of = json.dumps([stage, spec], sort_keys=True)
    with _loading:
        if made_of not in _held:
            _held.clear()
            component = LOADERS[stage](spec["name"], **spec["options"])
            _check(component, fingerprint)
            _held[made_of] = component
        return _held[made_of]


def _check(component: Any, fingerprint: str | None) -> None:
    run = FlowRunContext.get()
    if fingerprint is None or run is None or not run.detached:
        return
    contract = component.fingerprint()
    if storage.digest_of(dict(contract)) != fingerprint:
        raise ModelError(
            f"this worker would compute with {json.dumps(contract)}, which is not what the "
            f"run asks for ({fingerprint}): expected the same "
            "version of deita-tasks and the same model files on every machine"
        )


def forget_models() -> None:
    """Let go of the model that this process holds."""
    with _loading:
        _held.clear()


@contextmanager
def borrow_model(
    stage: str, spec: Spec, bounds: Bounds, fingerprint: str | None = None
) -> Iterator[Any]:
    """The component of a spec, alone on its devices, where it has one; `may_stop` ends its work
    when the run ends or the time is over.

    The time runs from when the component is ours.
    """
    event = stopping.get()

    def check() -> None:
        if event is not None and event.is_set():
            raise Stopped("the run is ending")
        if time.monotonic() > deadline:
            raise ComputeError(
                f"not done after {bounds.seconds:g} s, which is shard_timeout; expected less: "
                "raise it, or lower shard_rows"
            )

    deadline = float("inf")
    with stopped_by(check):
        component = component_of(stage, spec, fingerprint)
        devices = devices_of(component)
        with _alone() if devices else nullcontext(), device_slot(devices, bounds.slots):
            deadline = time.monotonic() + (bounds.seconds or float("inf"))
            may_stop()
            yield component


@contextmanager
def _alone() -> Iterator[None]:
    while not _computing.acquire(timeout=0.5):
        may_stop()
    try:
        yield
    finally:
        _computing.release()
