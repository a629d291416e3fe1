"""How far a run is: rows of finished shards and of batches, in the artifact of a stage."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from httpx import ConnectError

from deita_tasks.artifacts.shards import Shard
from deita_tasks.models.batch_progress import report_share
from deita_tasks.tasks import run_progress
from deita_tasks.tasks.run_progress import artifact_key, batches_reported, shown_progress

ARTIFACT = UUID(int=1)


class Clock:
    """Time that goes on when a test says so."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(run_progress, "time", clock)
    return clock


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """What the artifact shows, one after the other."""
    said: list[tuple[float, str]] = []

    def create(percent: float, key: str, description: str) -> UUID:
        assert key == "quality-progress"
        said.append((percent, description))
        return ARTIFACT

    def update(artifact: UUID, percent: float, description: str) -> None:
        assert artifact == ARTIFACT
        said.append((round(percent, 1), description))

    monkeypatch.setattr(run_progress, "create_progress_artifact", create)
    monkeypatch.setattr(run_progress, "update_progress_artifact", update)
    return said


def test_a_stage_moves_by_batch(clock: Clock, said: list[Any]) -> None:
    with shown_progress("quality", 100, 20) as shown:
        with batches_reported("a", 40):
            clock.now += 4
            report_share(1, 4)
            clock.now += 1
            report_share(2, 4)  # too soon for another request
            clock.now += 3
            report_share(3, 4)
        shown.finish(Shard(digest="a", rows=40))
        clock.now += 8
        shown.finish(Shard(digest="b", rows=40))
    assert said == [
        (20.0, "quality: 20 of 100 rows"),
        (30.0, "quality: 30 of 100 rows"),
        (50.0, "quality: 50 of 100 rows, about 10 s left"),
        (100.0, "quality: 100 of 100 rows"),
    ]


def test_rounds_settle_what_they_have_decided(clock: Clock, said: list[Any]) -> None:
    """Two stages: a value is half a row, and a decision may settle many rows at once."""
    with shown_progress("quality", 10, 0, weight=0.5) as shown:
        clock.now += 5
        shown.finish(Shard(digest="a", rows=4))
        clock.now += 5
        shown.settle(6)
        clock.now += 5
        shown.settle(5)  # it never goes back
        shown.settle(10)
    assert [percent for percent, _ in said] == [0.0, 20.0, 60.0, 100.0]


def test_a_retry_begins_its_shard_again(clock: Clock, said: list[Any]) -> None:
    with shown_progress("quality", 10, 0), batches_reported("a", 10):
        for done in (8, 2, 10):
            clock.now += 5
            report_share(done, 10)
    assert [percent for percent, _ in said] == [0.0, 80.0, 20.0, 100.0]


def test_work_goes_on_where_the_server_takes_no_progress(
    clock: Clock, said: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> None:
        raise ConnectError("away")

    monkeypatch.setattr(run_progress, "update_progress_artifact", fail)
    with shown_progress("quality", 10, 0) as shown:
        shown.finish(Shard(digest="a", rows=10))


def test_without_a_stage_nothing_is_shown(said: list[Any]) -> None:
    with batches_reported("a", 10):
        report_share(1, 1)
    assert said == []


def test_the_key_of_a_column_of_ones_own() -> None:
    assert artifact_key("provided:My score") == "provided-my-score"
