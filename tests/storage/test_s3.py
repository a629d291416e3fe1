"""The whole flow over S3: input, store, output and Prefect's results in a bucket; and a server that
fails.
"""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from deita_tasks import storage
from deita_tasks.artifacts.verify import verify
from deita_tasks.config import Advanced, Export, Scoring, Selection, Source
from deita_tasks.errors import StorageError
from tests.support.runs import LENGTHS, command, finish, texts_below
from tests.support.s3 import ACCESS, S3, SECRET, Proxy

pytest_plugins = ["tests.support.s3_fixtures"]
pytestmark = [pytest.mark.flow, pytest.mark.slow]


def select(pool: str, root: str, output: str = "output", **advanced: Any) -> dict[str, Any]:
    from flows.select import select_subset

    return select_subset(
        source=Source(input=[pool]),
        export=Export(output=f"{root}/{output}"),
        scoring=Scoring(**LENGTHS),
        selection=Selection(budget=10, strategy="top_score"),
        advanced=Advanced(store=f"{root}/store", shard_rows=8, **advanced),
    )


def files(uri: str) -> dict[str, bytes]:
    found = {}
    for file in storage.find(uri):
        with storage.open_read(f"{uri}/{file.name}") as handle:
            found[file.name] = handle.read()
    return found


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr(
        "deita_tasks.results.selection.build_report",
        lambda data: SimpleNamespace(html=b"<!doctype html>", figures={}),
    )


@pytest.fixture
def expected(prefect_server, small_pool, tmp_path, no_report):
    """What the same run gives on a local disk."""
    select(str(small_pool), str(tmp_path))
    return (tmp_path / "output" / "selected.jsonl").read_bytes()


def in_bucket(s3: S3, small_pool) -> tuple[str, str]:
    root = f"s3://{s3.bucket()}/ü and space"
    storage.write_bytes(f"{root}/pool.jsonl", small_pool.read_bytes())
    return f"{root}/pool.jsonl", root


def test_input_store_and_output_in_a_bucket(s3, small_pool, expected, tmp_path):
    pool, root = in_bucket(s3, small_pool)
    first = select(pool, root)
    assert first["computed"]["complexity"] == 30
    assert files(f"{root}/output")["selected.jsonl"] == expected
    assert [checked for checked in verify(f"{root}/store") if checked.problem] == []
    # another machine: it shares the bucket, and has a home, a server and a database of its own
    arguments = command(pool, f"{root}/store", f"{root}/again", "--shard-rows", "8")
    said = finish(
        arguments, PREFECT_HOME=str(tmp_path / "home"), COLUMNS="200", PREFECT_LOGGING_LEVEL="INFO"
    )
    again = files(f"{root}/again")
    manifest = json.loads(again["manifest.json"])
    assert again["selected.jsonl"] == expected
    assert manifest["computed"] == {"complexity": 0, "quality": 0, "embedding": 0}
    assert "0 tasks run, 4 Cached" in " ".join(said.split())
    written = {**dict(texts_below(tmp_path)), **files(root), "said": said.encode()}
    assert any(str(name).endswith("prefect.db") for name in written)
    for secret in (SECRET, ACCESS):
        assert [name for name, content in written.items() if secret.encode() in content] == []


def test_requests_that_fail_are_carried_through(flaky: Proxy, small_pool, expected, monkeypatch):
    flaky.use(monkeypatch)
    pool, root = in_bucket(flaky, small_pool)
    flaky.trouble.share = 0.08
    select(pool, root)
    flaky.trouble.share = 0.0
    assert all(flaky.trouble.done[kind] for kind in ("500", "503", "reset")), flaky.trouble.done
    assert files(f"{root}/output")["selected.jsonl"] == expected
    assert [checked for checked in verify(f"{root}/store") if checked.problem] == []


def test_a_server_that_is_away_for_some_seconds(flaky: Proxy, monkeypatch):
    flaky.use(monkeypatch)
    root = f"s3://{flaky.bucket()}"
    storage.write_bytes(f"{root}/x", b"1")
    flaky.trouble.away = True
    from threading import Timer

    Timer(2.0, lambda: setattr(flaky.trouble, "away", False)).start()
    start = time.monotonic()
    with storage.open_read(f"{root}/x") as handle:
        assert handle.read() == b"1"
    assert time.monotonic() - start > 1.5
    assert flaky.trouble.done["reset"] > 1


def test_a_server_that_is_gone_for_good(
    flaky: Proxy, s3_server: S3, small_pool, expected, monkeypatch
):
    flaky.use(monkeypatch, AWS_MAX_ATTEMPTS="2")
    pool, root = in_bucket(flaky, small_pool)
    flaky.trouble.away_after = 4  # two descriptions, and two of the eight parts
    with pytest.raises(
        StorageError, match="the store cannot be reached, also after several attempts"
    ):
        select(pool, root, retries=0)
    s3_server.use(monkeypatch)
    assert storage.is_empty(f"{root}/output")
    assert [checked for checked in verify(f"{root}/store") if checked.problem] == []
    there = [name for name in files(f"{root}/store") if "/part-" in name]
    assert 0 < len(there) < 8
    done = select(pool, root)
    assert done["reused"]["complexity"] + done["reused"]["quality"] >= 8
    assert files(f"{root}/output")["selected.jsonl"] == expected
