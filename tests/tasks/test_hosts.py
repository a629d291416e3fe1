"""What each host of a cluster has to have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deita_tasks.errors import ComputeError, UsageError
from deita_tasks.tasks.hosts import check_dask_hosts, describe_host, summarize, versions


def answer(host: str, problem: str | None = None, **differing: str) -> dict[str, Any]:
    return {"host": host, "versions": {**versions(), **differing}, "problem": problem}


def test_hosts_that_have_everything_are_told_in_one_line() -> None:
    line = summarize({"tcp://1": answer("a"), "tcp://2": answer("b"), "tcp://3": answer("b")})
    assert line == "3 workers on a, b: the same versions, store and Prefect server reached"
    assert summarize({}) == "no worker yet: shards wait until one comes"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (answer("b", torch="2.0.0"), "worker tcp://2 on host b has torch 2.0.0, here "),
        (answer("b", "does not see the store"), "worker tcp://2 on host b does not see the store"),
        (ModuleNotFoundError("No module named 'deita_tasks'"), "No module named 'deita_tasks'"),
    ],
)
def test_a_host_that_lacks_something_is_named(found: Any, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        summarize({"tcp://1": answer("a"), "tcp://2": found})


def test_a_host_that_is_gone_is_no_mistake_of_the_user() -> None:
    with pytest.raises(ComputeError, match="worker tcp://1 does not answer"):
        summarize({"tcp://1": OSError("connection closed")})


def test_a_host_looks_for_store_and_server(tmp_path: Path) -> None:
    assert describe_host(str(tmp_path), None)["problem"] is None
    missing = describe_host(str(tmp_path / "nowhere"), None)["problem"]
    assert missing.startswith("does not see the store")
    unreached = describe_host(str(tmp_path), "http://127.0.0.1:9/api")["problem"]
    assert "cannot reach the Prefect server at http://127.0.0.1:9/api" in unreached


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deita_tasks.tasks.hosts.TIMEOUT", 1)
    with pytest.raises(UsageError, match="no Dask scheduler answers there"):
        check_dask_hosts("tcp://127.0.0.1:9", "store", None)
