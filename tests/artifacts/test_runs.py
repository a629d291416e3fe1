"""Marks of runs under way: over a local folder, memory:// and S3."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from deita_tasks import storage
from deita_tasks.artifacts import runs
from deita_tasks.artifacts.runs import LIFETIME, mark_run, marked_runs, read_marks
from deita_tasks.errors import StorageError

pytest_plugins = ["tests.support.s3_fixtures"]


def test_a_run_has_a_mark_until_it_ends(place):
    with pytest.raises(KeyError), mark_run(place, "pool", {"quality": "digest"}, "selection"):
        (mark,) = read_marks(place, datetime.now(UTC))
        assert (mark.pool, mark.selection) == ("pool", "selection")
        assert mark.fingerprints == {"quality": "digest"}
        assert len(marked_runs(place)) == 1
        raise KeyError
    assert storage.find(place) == []
    assert read_marks(place, datetime.now(UTC)) == []


def test_the_mark_of_a_killed_run_dies(place):
    with mark_run(place, "pool", {}, "selection"):
        now = datetime.now(UTC)
        assert read_marks(place, now + LIFETIME - timedelta(minutes=1))
        assert read_marks(place, now + LIFETIME + timedelta(minutes=1)) == []


def test_a_mark_is_refreshed_whatever_the_store_does(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(runs, "REFRESH_SECONDS", 0.01)
    write_record, attempts = storage.write_record, []

    def write_sometimes(uri: str, record: runs.RunMark) -> None:
        attempts.append(uri)
        if len(attempts) == 2:
            raise StorageError("the store is away")
        write_record(uri, record)

    monkeypatch.setattr(storage, "write_record", write_sometimes)
    with mark_run(str(tmp_path), "pool", {}, "selection"):
        deadline = time.monotonic() + 20
        while len(attempts) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(attempts) >= 4
    assert "the store is away" in caplog.text
    assert storage.find(str(tmp_path)) == []
