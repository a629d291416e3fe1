"""Answers of a server are paid for once: whatever fails, and however many runs share a store."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deita_tasks.artifacts import parts
from deita_tasks.errors import DeitaError
from deita_tasks.tasks import preflight
from tests.support.completions_server import Script, serving
from tests.support.flow_runs import run
from tests.support.small_pool import write_rows

pytestmark = pytest.mark.flow

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": f"answer {number}"},
        ]
    }
    for number in range(24)
]
POISON = "question 17"


@pytest.fixture
def server() -> Iterator[Script]:
    script = Script()
    script.replies = ["4"]
    with serving(script) as running:
        yield running


@pytest.fixture(autouse=True)
def no_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    """It rates a few rows to see whether the model is fit, and keeps nothing."""

    def leave_out(*_: Any) -> None:
        raise RuntimeError("left out")

    monkeypatch.setattr(preflight, "check", leave_out)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "pool.jsonl", ROWS)


def judge(server: Script, pool: Path, output: Path, **options: Any) -> Any:
    given = {
        "complexity": "instruction_length",
        "quality": "judge",
        "quality_model": "m",
        "quality_url": server.url,
        "strategy": "top_score",
        "retries": 0,
        "request_attempts": 1,
        "shard_rows": 12,
    }
    return run(pool, pool.parent / "store", output, **{**given, **options})


def paid(server: Script) -> Counter[str]:
    """How often each question of the pool was sent."""
    text = [json.dumps(body["messages"]) for body in server.bodies]
    names = [row["messages"][0]["content"] for row in ROWS]
    return Counter({name: sum(f"{name}\\" in t or f'{name}"' in t for t in text) for name in names})


def test_a_text_that_the_server_cannot_take_costs_its_own_row(
    prefect_server: None, server: Script, pool: Path, tmp_path: Path
) -> None:
    server.fault_of = lambda body: (500, {}) if POISON in json.dumps(body) else None
    done = judge(server, pool, tmp_path / "out")
    (row,) = done.decided("unscorable")
    assert row["source_row"] == 18
    assert "but not this one" in row["reason"]
    asked = len(server.bodies)
    judge(server, pool, tmp_path / "out2", budget=5)
    assert len(server.bodies) == asked, "everything is in the store"


def test_answers_before_a_failure_are_kept(
    prefect_server: None, server: Script, pool: Path, tmp_path: Path
) -> None:
    """The server goes away in the middle of a shard."""
    seen = []

    def go_away(body: dict[str, Any]) -> Any:
        seen.append(body)
        return (503, {}) if len(seen) > 9 else None

    server.fault_of = go_away
    with pytest.raises(DeitaError, match="run again"):
        judge(server, pool, tmp_path / "out", concurrency=1)
    first = paid(server)
    server.bodies.clear()
    server.fault_of = lambda body: None
    judge(server, pool, tmp_path / "out", concurrency=1)
    second = paid(server)
    answered = [name for name in first if first[name] and not second[name]]
    assert len(answered) >= 7
    assert all(second[name] == 1 for name in second if name not in answered)


@pytest.mark.parametrize("seconds_per_part", [0.0, 30.0])
def test_two_runs_at_once_pay_once(
    prefect_server: None,
    server: Script,
    pool: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds_per_part: float,
) -> None:
    """The second begins while the first is under way, and would cut the rows in another way."""
    monkeypatch.setattr(parts, "SECONDS_PER_PART", seconds_per_part)

    def slowly(messages: Any) -> str:
        time.sleep(0.3)
        return "4"

    server.replies = [slowly]
    results: dict[str, Any] = {}

    def start(name: str, **options: Any) -> threading.Thread:
        def work() -> None:
            results[name] = judge(server, pool, tmp_path / name, concurrency=2, **options)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    first = start("first", shard_rows=6)
    while len(server.bodies) < 4:
        time.sleep(0.05)
    second = start("second", shard_rows=None)
    first.join()
    second.join()
    assert set(paid(server).values()) == {1}
    assert results["first"].kept == results["second"].kept
    computed = [run.manifest["computed"]["quality"] for run in results.values()]
    assert sum(computed) == len(ROWS), "each row is counted by the run that computed it"
