"""The whole flow over S3, with input, store, output and Prefect's results in a bucket.

And what a run does when the server fails.
"""

from __future__ import annotations

import json
import time
from threading import Timer
from typing import Any

import pytest

from deita_tasks import storage
from deita_tasks.config import Advanced, Export, Scoring, Selection, Source
from deita_tasks.errors import StorageError
from deita_tasks.results.records import Subset
from tests.support.outputs import leave_out_report
from tests.support.runs import LENGTHS, command, finish, texts_below
from tests.support.s3 import ACCESS, FAILURES, S3, SECRET, Proxy
from tests.support.small_store import problems

pytest_plugins = ["tests.support.s3_fixtures"]
pytestmark = [pytest.mark.flow, pytest.mark.slow]


def select(pool: str, root: str, output: str = "output", **advanced: Any) -> Subset:
    from flows.select import select_subset

    return select_subset(
        source=Source(input=[pool]),
        export=Export(output=f"{root}/{output}"),
        scoring=Scoring(**LENGTHS),
        selection=Selection(budget=10, strategy="top_score"),
        advanced=Advanced(store=f"{root}/store", shard_rows=8, **advanced),
    )


def files(uri: str) -> dict[str, bytes]:
    contents = {}
    for file in storage.find(uri):
        with storage.open_read(f"{uri}/{file.name}") as handle:
            contents[file.name] = handle.read()
    return contents


@pytest.fixture
def no_report(monkeypatch):
    leave_out_report(monkeypatch)


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
    assert first["computed"]["complexity"] == first.manifest.computed.complexity == 30
    assert files(f"{root}/output")["selected.jsonl"] == expected
    assert problems(f"{root}/store") == {}
    # another machine: it shares the bucket, and has a home, a server and a database of its own
    arguments = command(pool, f"{root}/store", f"{root}/again", "--shard-rows", "8")
    settings = {
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{tmp_path}/prefect.db",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "COLUMNS": "200",
    }
    output = finish(arguments, **settings)
    second = files(f"{root}/again")
    manifest = json.loads(second["manifest.json"])
    assert second["selected.jsonl"] == expected
    assert manifest["computed"] == {"complexity": 0, "quality": 0, "embedding": 0}
    assert "0 tasks run, 4 Cached" in " ".join(output.split())
    written = {**dict(texts_below(tmp_path)), **files(root), "output": output.encode()}
    assert any(str(name).endswith("prefect.db") for name in written)
    for secret in (SECRET, ACCESS):
        assert [name for name, content in written.items() if secret.encode() in content] == []


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_requests_that_fail_are_carried_through(
    flaky: Proxy, small_pool, expected, monkeypatch, share
):
    flaky.use(monkeypatch)
    pool, root = in_bucket(flaky, small_pool)
    flaky.trouble.share = share
    select(pool, root)
    flaky.trouble.share = 0.0
    assert all(flaky.trouble.counts[failure] for failure in FAILURES), flaky.trouble.counts
    assert files(f"{root}/output")["selected.jsonl"] == expected
    assert problems(f"{root}/store") == {}


def test_a_server_that_is_away_for_some_seconds(flaky: Proxy, monkeypatch):
    flaky.use(monkeypatch)
    root = f"s3://{flaky.bucket()}"
    storage.write_bytes(f"{root}/x", b"1")
    flaky.trouble.away = True
    Timer(2.0, lambda: setattr(flaky.trouble, "away", False)).start()
    start = time.monotonic()
    with storage.open_read(f"{root}/x") as handle:
        assert handle.read() == b"1"
    assert time.monotonic() - start > 1.5
    assert flaky.trouble.counts["reset"] > 1


def test_a_server_that_is_gone_for_good(
    flaky: Proxy, s3_server: S3, small_pool, expected, monkeypatch
):
    flaky.use(monkeypatch, AWS_MAX_ATTEMPTS="2")
    pool, root = in_bucket(flaky, small_pool)
    flaky.trouble.puts_until_away = 4  # two descriptions, and two of the eight parts
    message = "the store cannot be reached, also after several attempts"
    with pytest.raises(StorageError, match=message):
        select(pool, root, retries=0)
    s3_server.use(monkeypatch)
    assert storage.is_empty(f"{root}/output")
    assert problems(f"{root}/store") == {}
    parts = [name for name in files(f"{root}/store") if "/part-" in name]
    assert 0 < len(parts) < 8
    reused = select(pool, root).manifest.reused
    assert reused.complexity + reused.quality >= 8
    assert files(f"{root}/output")["selected.jsonl"] == expected
