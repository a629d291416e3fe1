"""Devices are shared: a shard that computes on one holds a slot of its Prefect concurrency limit,
so that runs take turns.

The limit `deita-<host>-cuda-0` is made on first use and can be changed in Prefect's UI or by
`prefect gcl update`. It holds between runs that use one Prefect server. A slot of a process that
was killed comes free after LEASE seconds, as long as the server knows of the lease: it has leases
in memory, unless PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE says otherwise, and so forgets them when
it is restarted or, a temporary one, ends with its command. What was held then stays taken until
`prefect gcl update NAME --active-slots 0`.
"""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from slugify import slugify

from deita_tasks.config import TEMPORARY_SERVER
from deita_tasks.models.hardware import choose_device
from deita_tasks.models.stopping import may_stop

log = logging.getLogger(__name__)

LEASE = 60  # seconds, the least that Prefect takes; renewed while the shard computes
PATIENCE = 5  # seconds of waiting for a slot between two looks at whether the run is to stop


def visible_gpus() -> list[str]:
    """The CUDA devices that this process may use, by the names that CUDA_VISIBLE_DEVICES has for
    them.
    """
    import torch

    return [_physical(number) for number in range(torch.cuda.device_count())]


def _physical(number: int) -> str:
    """The machine's name of what this process sees as CUDA device `number`."""
    visible = [
        one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()
    ]
    return visible[number] if number < len(visible) else str(number)


def on_gpu(component: Any) -> bool:
    """Whether a component computes on CUDA here."""
    return any(device.startswith("cuda") for device in devices_of(component))


def devices_of(component: Any) -> list[str]:
    """The devices on which a component computes: ["cpu"], ["cuda-0"], several where a model is
    spread; [] where it has no model here.

    A GPU has the number that the machine gives it, whatever this process sees of it.
    """
    device = getattr(component, "device", None)
    if device is None or not getattr(component, "works_on_device", True):
        return []
    kind, _, first = choose_device(device).partition(":")
    if kind != "cuda":
        return [kind]
    return [
        f"cuda-{_physical(int(first or 0) + number)}"
        for number in range(getattr(component, "gpus", 1))
    ]


def limit_names(devices: Sequence[str]) -> list[str]:
    """The names of the devices' limits."""
    return [slugify(f"deita-{socket.gethostname()}-{device}") for device in devices]


@contextmanager
def device_slot(devices: Sequence[str], slots: int | None) -> Iterator[None]:
    """Wait for a slot on each of `devices` and hold it. `slots`: how many each has; 0: no limit;
    None: one on a GPU, no limit on a CPU.

    A limit that is there already keeps its number of slots, unless `slots` says another. A server
    that ends with its command forgets the leases, and never frees the slot of a run that was
    killed: there is none by default then.
    """
    if slots is None and TEMPORARY_SERVER in os.environ:
        slots = 0
    wanted = (0 if "cpu" in devices else 1) if slots is None else slots
    if not devices or not wanted:
        yield
        return
    names = limit_names(devices)
    for name in names:
        _see_to_limit(name, wanted, change=slots is not None)
    with _acquired(names):
        yield


def _see_to_limit(name: str, slots: int, change: bool) -> None:
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=name, limit=slots)
                )
            except ObjectAlreadyExists:
                return  # another run has just made it
        else:
            if change and limit.limit != slots:
                client.upsert_global_concurrency_limit_by_name(name, slots)


@contextmanager
def _acquired(names: list[str]) -> Iterator[None]:
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
                    "waiting for a slot on %s; `prefect gcl inspect` says who holds one",
                    ", ".join(names),
                )
            may_stop()
    try:
        yield
    finally:
        slot.__exit__(None, None, None)
