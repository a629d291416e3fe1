"""Runs that share a device take turns on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deita_tasks.config import Advanced
from deita_tasks.scoring.mini.scorer import MiniScorer
from deita_tasks.tasks import device_slots
from tests.conftest import ROOT
from tests.support import components
from tests.support.flow_runs import run
from tests.support.runs import server_of_the_tests

pytestmark = pytest.mark.flow


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with four GPUs, of which this process may see numbers 3 and 1."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    monkeypatch.setattr("socket.gethostname", lambda: "Node_7.cluster")


@pytest.mark.parametrize(
    ("component", "devices"),
    [
        (SimpleNamespace(), []),
        (SimpleNamespace(device="cpu"), ["cpu"]),
        (SimpleNamespace(device="auto"), ["cuda-3"]),
        (SimpleNamespace(device="cuda:1"), ["cuda-1"]),
        (SimpleNamespace(device="cuda", gpus=2), ["cuda-3", "cuda-1"]),
        (MiniScorer(kind="complexity"), ["cuda-3"]),
        (MiniScorer(kind="quality"), []),  # counts, and leaves the GPU to others
    ],
)
def test_a_device_has_the_number_that_the_machine_gives_it(
    two_gpus: None, component: Any, devices: list[str]
) -> None:
    assert device_slots.devices_of(component) == devices
    assert device_slots.is_on_gpu(component) == any("cuda" in device for device in devices)


def test_names(two_gpus: None) -> None:
    assert device_slots.limit_names(["cuda-3", "cpu"]) == [
        "deita-node-7-cluster-cuda-3",
        "deita-node-7-cluster-cpu",
    ]
    assert device_slots.visible_gpus() == ["3", "1"]


def slots(name: str) -> tuple[int, int] | None:
    """A limit's slots and how many of them are taken; None where there is no such limit."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            return None
    return limit.limit, limit.active_slots


def test_a_limit_is_made_on_first_use_and_then_left_as_it_is(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "first-use")
    name = "deita-first-use-cuda-0"
    with device_slots.device_slot(["cuda-0"], None):
        assert slots(name) == (1, 1)
    assert slots(name) == (1, 0)
    with device_slots.device_slot(["cuda-0"], 3):
        assert slots(name) == (3, 1)
    with device_slots.device_slot(["cuda-0"], None):  # somebody said three
        assert slots(name) == (3, 1)
    with (
        device_slots.device_slot(["cpu"], None),
        device_slots.device_slot([], 1),
        device_slots.device_slot(["cuda-1"], 0),
    ):
        assert slots("deita-first-use-cpu") is slots("deita-first-use-cuda-1") is None


def test_a_slot_is_given_back_by_who_fails_and_not_waited_for_by_who_is_stopped(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deita_tasks.models.stopping import stopped_by

    monkeypatch.setattr("socket.gethostname", lambda: "stopped")
    monkeypatch.setattr(device_slots, "PATIENCE", 0.5)
    with pytest.raises(ZeroDivisionError), device_slots.device_slot(["cuda-0"], None):
        raise ZeroDivisionError
    assert slots("deita-stopped-cuda-0") == (1, 0)

    def stop() -> None:
        raise KeyboardInterrupt

    with (
        device_slots.device_slot(["cuda-0"], None),
        stopped_by(stop),
        pytest.raises(KeyboardInterrupt),
        device_slots.device_slot(["cuda-0"], None),
    ):
        pytest.fail("two in one slot")
    assert slots("deita-stopped-cuda-0") == (1, 0)


def test_only_what_is_computed_asks_for_a_slot(
    tiny: None, small_pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(
        device_slots, "_acquire", lambda names: asked.append(names) or nullcontext()
    )
    monkeypatch.setattr(components.TopicEmbedder, "device", "cpu", raising=False)
    run(small_pool, tmp_path / "store", tmp_path / "first", device_slots=1)
    assert len(asked) == 5, "the preflight, and four shards of vectors"
    again = run(small_pool, tmp_path / "store", tmp_path / "again", device_slots=1)
    assert len(asked) == 5
    assert sum(stage["cached"] for stage in again.result["tasks"].values()) == 12


def test_a_server_that_forgets_its_leases_gives_no_slot_unless_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(
        device_slots, "_acquire", lambda names: asked.append(names) or nullcontext()
    )
    monkeypatch.setattr(device_slots, "_ensure_limit", lambda *given, **more: None)
    monkeypatch.setenv("DEITA_TEMPORARY_SERVER", "1")
    for slots in (None, 0, 2):
        with device_slots.device_slot(["cuda-0"], slots):
            pass
    assert len(asked) == 1


@pytest.mark.slow
def test_two_runs_at_once_never_compute_at_once_on_one_device(
    prefect_server: None, small_pool: Path, tmp_path: Path
) -> None:
    times = tmp_path / "times"
    command = [sys.executable, "-m", "tests.support.shared_device", str(small_pool)]
    environment = {**os.environ, **server_of_the_tests()}
    runs = [
        subprocess.Popen(
            [*command, str(tmp_path / name), str(times)],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for process in runs:
        _, said = process.communicate(timeout=500)  # a slot changes hands in seconds
        assert process.returncode == 0, said
    spans = sorted(
        (float(begun), float(ended), pid)
        for pid, begun, ended in map(str.split, times.read_text().splitlines())
    )
    assert Counter(pid for _, _, pid in spans) == {str(process.pid): 10 for process in runs}
    changes = sum(before[2] != after[2] for before, after in pairwise(spans))
    assert changes > 1, "one after the other"
    for before, after in pairwise(spans):
        assert before[1] <= after[0], "two shards on one device at a time"


@pytest.mark.slow
def test_each_process_has_a_gpu_and_its_share_of_the_cores(
    prefect_server: None, two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow

    from deita_tasks.tasks import ShardRunner
    from tests.support.shared_device import environment_here

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)

    @flow(persist_result=False, result_serializer="json")
    def asked() -> list[dict[str, str]]:
        with ShardRunner(
            Advanced(runner="process", store=str(tmp_path)), [SimpleNamespace(device="auto")]
        ) as crew:
            futures = crew.map(environment_here, SimpleNamespace(), {"number": list(range(6))}, {})
            return [future.result() for future in futures]

    here = asked()
    assert {one["CUDA_VISIBLE_DEVICES"] for one in here} == {"3", "1"}
    assert len({(one["pid"], one["CUDA_VISIBLE_DEVICES"]) for one in here}) == 2
    assert {one["OMP_NUM_THREADS"] for one in here} == {"3"}
