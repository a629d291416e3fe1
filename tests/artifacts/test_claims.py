"""Claims: over a local folder, memory:// and S3."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from deita_tasks import storage
from deita_tasks.artifacts import claims
from deita_tasks.artifacts.claims import Claim, claimed
from deita_tasks.errors import StorageError
from deita_tasks.models.stopping import stopped_by

pytest_plugins = ["tests.support.s3_fixtures"]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(claims, "RENEWAL_SECONDS", 0.1)
    monkeypatch.setattr(claims, "EXPIRY_SECONDS", 1.0)
    monkeypatch.setattr(claims, "SETTLING_SECONDS", 0.1)
    yield


def write(uri: str, claim: Claim) -> None:
    storage.write_bytes(uri, claim.model_dump_json().encode())


def read(uri: str) -> Claim:
    """Read a claim that its owner may be writing."""
    while True:
        try:
            return storage.read_record(uri, Claim)
        except StorageError:
            time.sleep(0.02)


def foreign() -> Claim:
    return Claim(owner="0" * 32, host="another-machine", process=1)


def run_together(action: Callable[[int], None], count: int) -> None:
    """Call `action` with each number below `count`, in a thread each."""
    threads = [threading.Thread(target=action, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_only_one_of_many_creates_a_file(place):
    uri = f"{place}/claims/claim-x.json"
    successes: list[int] = []

    def create(number: int) -> None:
        if storage.create(uri, b"%d" % number):
            successes.append(number)

    run_together(create, 8)
    (winner,) = successes
    with storage.open_read(uri) as handle:
        assert handle.read() == b"%d" % winner


def create_many(folder: str, begin: float) -> list[bool]:
    while time.time() < begin:
        pass
    return [storage.create(f"{folder}/{number}.json", b"x") for number in range(300)]


def test_only_one_of_two_processes_creates_a_file(tmp_path):
    begin = time.time() + 5
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        first, second = pool.map(create_many, [str(tmp_path)] * 2, [begin] * 2)
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_the_blocks_of_a_claim_never_overlap(place, monkeypatch):
    monkeypatch.setattr(claims, "EXPIRY_SECONDS", 60.0)  # a busy machine may stop a thread for long
    uri = f"{place}/claim-x.json"
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with claimed(uri):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.15)
            inside.remove(number)

    run_together(work, 3)
    assert most == [1, 1, 1]
    assert not storage.exists(uri)


def test_a_claim_is_renewed_and_outlives_its_expiry(place):
    uri = f"{place}/claim-x.json"
    with claimed(uri):
        first = read(uri)
        while (later := read(uri)).renewal < first.renewal + 2:
            time.sleep(0.1)
    assert later.owner == first.owner


def test_a_claim_that_no_longer_changes_expires(place):
    uri = f"{place}/claim-x.json"
    write(uri, foreign())
    start = time.monotonic()
    with claimed(uri):
        assert time.monotonic() - start >= claims.EXPIRY_SECONDS


def test_the_claim_of_an_ended_process_of_this_machine_ends_at_once(place, monkeypatch):
    monkeypatch.setattr(claims, "EXPIRY_SECONDS", 60.0)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    uri = f"{place}/claim-x.json"
    ours = Claim.of_this_process()
    write(uri, ours.model_copy(update={"process": process.pid}))
    start = time.monotonic()
    with claimed(uri):
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_half_a_claim_expires_too(place, content):
    uri = f"{place}/claim-x.json"
    storage.write_bytes(uri, content)
    with claimed(uri):
        assert storage.read_record(uri, Claim).process > 0


def test_a_process_of_another_container_is_not_taken_for_ended(place):
    """It may have the same host name, and a number that no process has here."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    claim = Claim(owner="0" * 32, host="another boot", process=process.pid)
    assert not claim.is_of_ended_process()
    assert not claim.model_copy(update={"host": ""}).is_of_ended_process()


def test_a_claim_that_may_not_be_removed_is_taken_over(place, monkeypatch):
    def refuse(uri: str) -> None:
        raise StorageError("denied")

    uri = f"{place}/claim-x.json"
    write(uri, foreign())
    monkeypatch.setattr(storage, "remove", refuse)
    with claimed(uri):
        assert read(uri).owner != foreign().owner


def test_who_lost_its_claim_leaves_that_of_another_alone(place):
    uri = f"{place}/claim-x.json"
    with claimed(uri):
        write(uri, foreign())
        time.sleep(0.3)
    assert storage.read_record(uri, Claim) == foreign()


def test_a_wait_can_be_stopped(place):
    uri = f"{place}/claim-x.json"
    write(uri, foreign())

    def stop() -> None:
        raise KeyboardInterrupt

    with stopped_by(stop), pytest.raises(KeyboardInterrupt), claimed(uri):
        pass
    assert storage.read_record(uri, Claim) == foreign()
