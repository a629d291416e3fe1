"""A run that is killed, stopped, or finds no room: the store stays whole, and the same command goes
on from there.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from deita_tasks import storage
from deita_tasks.artifacts.garbage import find_garbage, remove_garbage
from deita_tasks.artifacts.runs import marked_runs
from deita_tasks.artifacts.verify import verify
from deita_tasks.config import Advanced, Export, Scoring, Selection, Source
from deita_tasks.errors import StorageError
from tests.support.planted_results import planted
from tests.support.runs import LENGTHS, command, finish, server_of_the_tests, start

pytestmark = [pytest.mark.flow, pytest.mark.slow]

ROWS_A_SHARD = 28  # 392 distinct rows: 14 parts of each of two scores


def parts_in(store: Path) -> dict[Path, int]:
    """Every part that is there, and when it was written."""
    found = {}
    for path in store.rglob("part-*.parquet"):
        found[path] = path.stat().st_mtime_ns
    return found


def damage_in(store: Path) -> list[str]:
    return [
        f"{checked.name}: {checked.problem}" for checked in verify(str(store)) if checked.problem
    ]


@pytest.fixture(scope="module")
def server(prefect_server):
    return server_of_the_tests()


@pytest.fixture(scope="module")
def undisturbed(server, sample_pool, tmp_path_factory):
    """The selection and the ledger that a run nobody disturbs gives."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "deita_tasks.results.selection.build_report",
            lambda data: SimpleNamespace(html=b"<!doctype html>", figures={}),
        )
        select(sample_pool, folder, shard_rows=100)
    return (folder / "out" / "selected.jsonl").read_bytes(), storage.read_table(
        str(folder / "out" / "decisions.parquet")
    )


def stop_at(
    arguments: list[str],
    store: Path,
    parts: int,
    signal_number: int,
    pause: float,
    server: dict[str, str],
) -> tuple[int, str]:
    """Start the command, send it a signal `pause` seconds after so many parts are there; its status
    and what it said.
    """
    process = start(arguments, **server)
    patience = time.monotonic() + 120
    while len(parts_in(store)) < parts and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.002)
    time.sleep(pause)
    process.send_signal(signal_number)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def test_killed_at_several_moments(server, undisturbed, sample_pool, tmp_path):
    """Twice over, at random moments, the second further on; then the command is left to finish."""
    dice = random.Random(5)
    store, output = tmp_path / "store", tmp_path / "out"
    arguments = command(
        str(sample_pool), str(store), str(output), "--shard-rows", str(ROWS_A_SHARD)
    )
    completed: dict[Path, int] = {}
    for moment in sorted(dice.sample(range(1, 25), 2)):
        status, said = stop_at(arguments, store, moment, signal.SIGKILL, dice.random() / 20, server)
        assert status == -signal.SIGKILL, said
        assert not output.exists()
        assert damage_in(store) == []
        assert completed.items() <= parts_in(store).items()  # not one was made again
        completed = parts_in(store)
        assert moment <= len(completed) <= 28
    finish(arguments, **server)
    assert completed.items() <= parts_in(store).items()
    selected, decisions = undisturbed
    assert (output / "selected.jsonl").read_bytes() == selected
    assert storage.read_table(str(output / "decisions.parquet")).equals(decisions)
    manifest = json.loads((output / "manifest.json").read_text())
    rows = sum(storage.read_table(str(path), ["id"]).num_rows for path in completed)
    assert manifest["reused"]["complexity"] + manifest["reused"]["quality"] == rows
    assert damage_in(store) == []


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of the worker processes of a command."""
    children = [
        child
        for path in Path(f"/proc/{process.pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]
    return [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_a_worker_is_killed(server, undisturbed, sample_pool, tmp_path):
    """The command says so and ends; the parts that were done stay, and the same command finishes
    with the same selection.
    """
    store, output = tmp_path / "store", tmp_path / "out"
    arguments = command(
        str(sample_pool),
        str(store),
        str(output),
        "--shard-rows",
        "8",
        "--runner",
        "process",
        "--workers",
        "2",
    )
    process = start(arguments, **server)
    patience = time.monotonic() + 120
    moment = random.Random(7).randrange(5, 20)
    while len(parts_in(store)) < moment and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.002)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "worker processes was killed" in said.splitlines()[-1]
    assert not output.exists()
    assert damage_in(store) == []
    completed = parts_in(store)
    finish(arguments, **server)
    assert completed.items() <= parts_in(store).items()
    assert (output / "selected.jsonl").read_bytes() == undisturbed[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal(server, undisturbed, sample_pool, tmp_path, number):
    store, output = tmp_path / "store", tmp_path / "out"
    arguments = command(
        str(sample_pool), str(store), str(output), "--shard-rows", str(ROWS_A_SHARD)
    )
    status, said = stop_at(arguments, store, 10, number, 0.0, server)
    assert status != 0, said
    assert "Traceback" not in said.splitlines()[-1]
    assert not output.exists()
    assert damage_in(store) == []
    completed = parts_in(store)
    assert completed
    finish(arguments, **server)
    assert completed.items() <= parts_in(store).items()
    assert (output / "selected.jsonl").read_bytes() == undisturbed[0]


# ---- in this process


def select(pool: Path, folder: Path, **advanced: object) -> dict[str, object]:
    from flows.select import select_subset

    return select_subset(
        source=Source(input=[str(pool)]),
        export=Export(output=str(folder / "out"), overwrite=True),
        scoring=Scoring(**LENGTHS),
        selection=Selection(budget=10, strategy="top_score"),
        advanced=Advanced(store=str(folder / "store"), **{"shard_rows": 8, **advanced}),
    )


@pytest.fixture
def quick(prefect_server, monkeypatch):
    monkeypatch.setattr(
        "deita_tasks.results.selection.build_report",
        lambda data: SimpleNamespace(html=b"<!doctype html>", figures={}),
    )


def test_a_full_disk(quick, small_pool, tmp_path, monkeypatch):
    """One line; what was computed stays, and with room the same run goes on."""
    replace, room = os.replace, [5]

    def full(source: str, target: str) -> None:
        if "/part-" in str(target):
            room[0] -= 1
            if room[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match="the disk is full; make room and run again"):
            select(small_pool, tmp_path, retries=0)
    assert len(parts_in(tmp_path / "store")) == 5
    assert not list((tmp_path / "store").rglob(".*"))
    assert damage_in(tmp_path / "store") == []
    assert not (tmp_path / "out").exists()
    done = select(small_pool, tmp_path)
    assert (
        done["computed"]["quality"] == 30 - 8
    )  # four parts of complexity, and one of quality, were there


def test_a_part_that_is_damaged_or_gone_costs_its_own_rows(quick, small_pool, tmp_path):
    select(small_pool, tmp_path)
    expected = (tmp_path / "out" / "selected.jsonl").read_bytes()
    quality = sorted((tmp_path / "store" / "scores" / "quality").rglob("part-*.parquet"))
    complexity = sorted((tmp_path / "store" / "scores" / "complexity").rglob("part-*.parquet"))
    rows = [storage.read_table(str(path), ["id"]).num_rows for path in (quality[0], complexity[1])]
    quality[0].unlink()
    complexity[1].write_bytes(complexity[1].read_bytes()[:-40])
    (
        tmp_path / "store" / "results" / next(iter(os.listdir(tmp_path / "store" / "results")))
    ).write_bytes(b"{half a rec")
    done = select(small_pool, tmp_path)
    assert (done["computed"]["quality"], done["computed"]["complexity"]) == tuple(rows)
    assert (tmp_path / "out" / "selected.jsonl").read_bytes() == expected
    assert damage_in(tmp_path / "store") == []


@pytest.mark.parametrize("name", ["pickle", "default decoder", "class"])
def test_a_planted_result_is_not_run(quick, small_pool, tmp_path, name):
    """Whoever may write to a shared store must not run code on the machines that read it."""
    trap = tmp_path / "sprung"
    select(small_pool, tmp_path)
    content = json.dumps(dict(planted(trap))[name])
    for path in (tmp_path / "store" / "results").iterdir():
        path.write_text(content)
    done = select(small_pool, tmp_path)
    assert done["computed"] == {"complexity": 0, "quality": 0, "embedding": 0}
    assert not trap.exists()


def test_gc_beside_a_run_takes_nothing_from_it(quick, small_pool, tmp_path):
    """Without any grace, and in a store where an earlier run left what this one takes up."""
    store = tmp_path / "store"
    select(small_pool, tmp_path)
    shutil.rmtree(store / "selections")
    for part in parts_in(store):
        if "quality" in str(part):
            part.unlink()
    for path in store.rglob("*"):
        os.utime(path, (0, 0))
    ended = threading.Event()
    sweeps: list[int] = []

    def sweep() -> None:
        while not ended.is_set():
            known_runs = marked_runs(str(store))
            if known_runs:
                files = find_garbage(str(store), timedelta(0))
                sweeps.append(remove_garbage(str(store), files, (), known_runs))

    with ThreadPoolExecutor(1) as collector:
        collection = collector.submit(sweep)
        try:
            done = select(small_pool, tmp_path, retries=0)
        finally:
            ended.set()
        collection.result()
    assert len(sweeps) > 3
    assert (done["computed"]["complexity"], done["computed"]["quality"]) == (0, 30)
    assert damage_in(store) == []
    assert not list((store / "runs").iterdir())
    assert find_garbage(str(store), timedelta(0)) != []  # its plan, for one


def test_a_killed_run_s_mark_is_collected(server, sample_pool, tmp_path):
    store, output = tmp_path / "store", tmp_path / "out"
    arguments = command(str(sample_pool), str(store), str(output))
    stop_at(arguments, store, 1, signal.SIGKILL, 0.0, server)
    (mark,) = (store / "runs").glob("*.json")
    left = {file.name for file in find_garbage(str(store), timedelta(0))}
    assert left == set()  # it may still be under way
    hour = datetime.now(UTC) + timedelta(minutes=61)
    left = {file.name for file in find_garbage(str(store), timedelta(0), now=hour)}
    assert f"runs/{mark.name}" in left


def test_two_runs_over_one_store_at_once(server, undisturbed, sample_pool, tmp_path):
    outputs = [tmp_path / "one", tmp_path / "two"]
    store = tmp_path / "store"
    sizes = ["100", "130"]  # their parts overlap
    runs = [
        start(command(str(sample_pool), str(store), str(output), "--shard-rows", size), **server)
        for output, size in zip(outputs, sizes, strict=True)
    ]
    for process in runs:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert [(output / "selected.jsonl").read_bytes() for output in outputs] == [undisturbed[0]] * 2
    assert damage_in(store) == []
