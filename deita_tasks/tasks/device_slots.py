"""Share devices: a shard that computes on one holds a slot of its Prefect concurrency limit.

Runs that use one Prefect server so take turns. The limit `deita-<host>-cuda-0` is created on first
use; change it in Prefect's UI or by `prefect gcl update`.

The slot of a killed process becomes free after LEASE seconds, as long as the server knows of the
lease. By default the server keeps leases in memory (PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE), so
it forgets them when it restarts, and a temporary server when its command ends. Such a slot stays
taken until `prefect gcl update NAME --active-slots 0`.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from slugify import slugify

from deita_tasks.config import TEMPORARY_SERVER
from deita_tasks.models.hardware import choose_device
from deita_tasks.models.stopping import raise_if_stopped

log = logging.getLogger(__name__)

LEASE = 60  # seconds, the least that Prefect accepts; renewed while the shard computes
PATIENCE = 5  # seconds to wait for a slot before checking whether the run is to stop


def visible_gpus() -> list[str]:
    """Return the CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them.

    [] where there are none. Without that variable, their numbers as texts: "0", "1".
    """
    import torch

    return [_physical_name(number) for number in range(torch.cuda.device_count())]


def _physical_name(number: int) -> str:
    """Return the machine's name of what this process sees as CUDA device `number`."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    visible = [name.strip() for name in names if name.strip()]
    return visible[number] if number < len(visible) else str(number)


def is_on_gpu(component: Any) -> bool:
    """Return whether a component computes on CUDA here."""
    return any(device.startswith("cuda") for device in devices_of(component))


def devices_of(component: Any) -> list[str]:
    """Return the devices that a component computes on.

    ["cpu"], ["cuda-0"], several for a model that is spread, [] for a component without a local
    model. GPUs have the machine's numbers, whatever this process sees.
    """
    device = getattr(component, "device", None)
    if device is None or not getattr(component, "works_on_device", True):
        return []
    kind, _, first = choose_device(device).partition(":")
    if kind != "cuda":
        return [kind]
    first_gpu = int(first or 0)
    gpus = range(first_gpu, first_gpu + getattr(component, "gpus", 1))
    return [f"cuda-{_physical_name(number)}" for number in gpus]


def limit_names(devices: Sequence[str]) -> list[str]:
    """Return the names of the devices' concurrency limits.

    With the host's name, so that "cuda-0" of two machines are two limits.
    """
    return [slugify(f"deita-{socket.gethostname()}-{device}") for device in devices]


@contextmanager
def device_slot(devices: Sequence[str], slots: int | None) -> Iterator[None]:
    """Wait for a slot on each of `devices`, and hold it within the block.

    slots: how many each device has; 0: no limit; None: one on a GPU, no limit on a CPU. An
    existing limit keeps its number of slots unless `slots` sets another.
    """
    wanted = _number_of_slots(devices, slots)
    if not devices or not wanted:
        yield
        return
    names = limit_names(devices)
    for name in names:
        _ensure_limit(name, wanted, update=slots is not None)
    with _acquire(names):
        yield


def _number_of_slots(devices: Sequence[str], slots: int | None) -> int:
    """Return how many shards may compute on each device at a time; 0: nobody counts them."""
    if slots is not None:
        return slots
    # A temporary server forgets leases when its command ends, so it would never free the slot of
    # a killed run.
    if TEMPORARY_SERVER in os.environ or "cpu" in devices:
        return 0
    return 1


def _ensure_limit(name: str, slots: int, update: bool) -> None:
    """Create the concurrency limit `name` with `slots`, unless the server has it.

    update: whether an existing limit gets this number of slots; a person may have set another.
    """
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            try:
                new_limit = GlobalConcurrencyLimitCreate(name=name, limit=slots)
                client.create_global_concurrency_limit(new_limit)
            except ObjectAlreadyExists:
                return  # another run has just created it
        else:
            if update and limit.limit != slots:
                client.upsert_global_concurrency_limit_by_name(name, slots)


@contextmanager
def _acquire(names: list[str]) -> Iterator[None]:
    """Hold a slot of each limit within the block.

    All at once or none, so no two runs block each other. Waits without end, but looks every
    PATIENCE seconds whether the run is to stop. A lease that cannot be renewed does not end the
    work.
    """
    for attempt in count(1):
        slot = concurrency(
            names,
            timeout_seconds=PATIENCE,
            lease_duration=LEASE,
            strict=True,
            raise_on_lease_renewal_failure=False,
        )
        try:
            slot.__enter__()
            break
        except TimeoutError:
            if attempt == 1:
                log.info(
                    "waiting for a slot on %s; `prefect gcl inspect` shows who holds one",
                    ", ".join(names),
                )
            raise_if_stopped()
    try:
        yield
    finally:
        slot.__exit__(None, None, None)


def chosen_device_slot(device: str, slots: int | None) -> AbstractContextManager[None]:
    """Return the slot of the one device that `device` chooses.

    The first GPU that this process sees, or the CPU. slots: as in `device_slot`.
    """
    gpus = visible_gpus() if choose_device(device) != "cpu" else []
    return device_slot([f"cuda-{gpus[0]}"] if gpus else ["cpu"], slots)
