"""Claims: two runs over one store do not compute the same shard at the same time.

A claim is a small file beside the parts. Its owner writes it anew every few seconds; who finds the
claim of another waits until it is gone, or takes it over when it no longer changes. So a claim ends
with its owner: on the same machine at once, elsewhere after EXPIRY_SECONDS. If two take over a
claim at the same moment, both may compute the shard: that costs, but every result stays right.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from deita_tasks import storage
from deita_tasks.artifacts.heartbeat import repeated
from deita_tasks.errors import MissingFile, StorageError
from deita_tasks.models.stopping import raise_if_stopped
from deita_tasks.strict_json import JsonRecord

log = logging.getLogger(__name__)

RENEWAL_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
POLL_SECONDS = 1.0
SETTLING_SECONDS = 1.0  # in which another that takes over the same claim would write


class Claim(JsonRecord):
    """The file of a claim. renewal: how often its owner has written it."""

    owner: str
    host: str
    process: int
    renewal: int = 0

    @classmethod
    def of_this_process(cls) -> Claim:
        """Return a new claim of this process, with an owner that no other claim has."""
        return cls(owner=uuid.uuid4().hex, host=_host(), process=os.getpid())

    def renewed(self) -> Claim:
        """Return the claim as its owner writes it next.

        Others see that the number has changed, so clocks need not agree.
        """
        return self.model_copy(update={"renewal": self.renewal + 1})

    def to_bytes(self) -> bytes:
        """Return the content of its file."""
        return self.model_dump_json().encode()

    def is_of_ended_process(self) -> bool:
        """Return whether its owner was a process of this machine that has ended.

        False for one of another machine, whose end shows only when its claim is not renewed.
        """
        if not self.host or self.host != _host():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # a process of somebody else
            pass
        return False


def _host() -> str:
    """Return a name of this boot of this machine, or container; "" where it is not known.

    Names of machines repeat, and containers of one machine count their processes apart.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


@contextmanager
def claimed(uri: str) -> Iterator[None]:
    """Hold the claim at `uri` during the block; wait as long as another process holds it.

    The wait can be stopped (`raise_if_stopped`).
    """
    claim = Claim.of_this_process()
    is_logged = False
    while not _create(uri, claim):
        if not is_logged:
            log.info("waiting for another run, which computes the same rows (%s)", uri)
            is_logged = True
        if _wait_for_end(uri) and _take_over(uri, claim):
            break
    try:
        with repeated(partial(_renew, uri, claim.owner), RENEWAL_SECONDS):
            yield
    finally:
        with suppress(StorageError):  # it expires
            if _read(uri, claim.owner) is not None:
                storage.remove(uri)


def _create(uri: str, claim: Claim) -> bool:
    """Write the claim unless another process holds one; return whether it is there."""
    if storage.create(uri, claim.to_bytes()):
        return True
    # A store may carry out a request and lose the answer; repeated, it finds our own claim.
    with suppress(StorageError):
        return _read(uri, claim.owner) is not None
    return False


def _renew(uri: str, owner: str) -> bool:
    """Write the owner's claim anew; return whether no other process has taken it."""
    with suppress(StorageError):  # the next attempt may succeed
        claim = _read(uri, owner)
        if claim is None:
            return False
        storage.write_bytes(uri, claim.renewed().to_bytes())
    return True


def _read(uri: str, owner: str) -> Claim | None:
    """Return the claim at `uri` if it is of this owner."""
    try:
        claim = storage.read_record(uri, Claim)
    except MissingFile:
        return None
    return claim if claim.owner == owner else None


def _wait_for_end(uri: str) -> bool:
    """Wait until the claim at `uri` is gone, or its owner has ended; return whether it is left."""
    last: object = None
    unchanged_since = time.monotonic()
    while True:
        raise_if_stopped()
        try:
            claim: object = storage.read_record(uri, Claim)
        except MissingFile:
            return False
        except StorageError as error:  # half a claim, perhaps of a process killed while it wrote
            claim = str(error)
        if claim != last:
            last, unchanged_since = claim, time.monotonic()
        if isinstance(claim, Claim) and claim.is_of_ended_process():
            return True
        if time.monotonic() - unchanged_since > EXPIRY_SECONDS:
            return True
        time.sleep(POLL_SECONDS)


def _take_over(uri: str, claim: Claim) -> bool:
    """Write our claim over that of an owner that has ended; return whether it stays ours."""
    storage.write_bytes(uri, claim.to_bytes())
    time.sleep(SETTLING_SECONDS)
    return _read(uri, claim.owner) is not None
