"""Runs whose model server is not there, goes away, or fails on one text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deita_tasks.errors import ServerError, ServerUnreachable
from tests.support.completions_server import Script, serving
from tests.support.flow_runs import Run, run
from tests.support.hostile_server import closed_port
from tests.support.small_pool import ROWS, write_rows

pytestmark = pytest.mark.flow


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("deita_tasks.scoring.http_client._growing_pause", lambda state: 0.01)
    with serving(Script()) as script:
        script.replies = ["4"]
        yield script


def judged(folder: Path, url: str, **given: Any) -> Run:
    """A run of 15 shards whose quality a judge scores."""
    return run(
        write_rows(folder / "pool.jsonl", ROWS),
        folder / "store",
        folder / "out",
        **{"quality": "judge", "quality_model": "m", "quality_url": url, "shard_rows": 2, **given},
        complexity="instruction_length",
        strategy="top_score",
    )


def test_a_server_that_is_not_there_is_told_before_any_shard(tiny: None, tmp_path: Path) -> None:
    url = closed_port()
    begin = time.monotonic()
    with pytest.raises(ServerUnreachable, match=rf"{url}.*ConnectionRefusedError"):
        judged(tmp_path, url)
    assert time.monotonic() - begin < 10
    assert not list((tmp_path / "store" / "scores").rglob("part-*"))


@pytest.mark.parametrize("runner", ["thread", "process"])
def test_a_server_that_goes_away_stops_the_stage(
    runner: str, tiny: None, tmp_path: Path, server: Script
) -> None:
    preflight = 1 + sum(
        len([t for t in row["messages"] if t["role"] == "user"]) for row in ROWS[:8]
    )
    server.fault_of = lambda body: (500, {}) if len(server.bodies) > preflight + 8 else None
    with pytest.raises(ServerError, match="no answer in 2 attempts"):
        judged(tmp_path, server.url, runner=runner, workers=1, request_attempts=2, retries=1)
    failed = len(server.bodies) - preflight - 8
    # at a few pairs and the probe, twice each, and the probe again in the shard's retry
    assert failed < 2 * 10
    assert list((tmp_path / "store" / "scores" / "quality").rglob("part-*"))


def test_a_text_that_the_server_fails_on_is_unscorable(
    tiny: None, tmp_path: Path, server: Script
) -> None:
    text = ROWS[20]["messages"][0]["content"]
    server.fault_of = lambda body: (500, {}) if text in body["messages"][1]["content"] else None
    done = judged(tmp_path, server.url, min_good_fraction=0.9, shard_rows=30)
    (row,) = done.decided("unscorable")
    assert row["source_row"] == 21
    assert "the server answers a short pair, but not this one" in row["reason"]
    assert "status 500" in row["reason"]
