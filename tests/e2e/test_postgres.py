"""Prefect's server on a real PostgreSQL: a run is recorded there, task by task."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.bench_databases import count_recorded
from tests.e2e.conftest import until
from tests.support.postgres import find_programs, start_postgres, start_prefect
from tests.support.runs import command, finish
from tests.support.small_pool import write_small_pool

PROGRAMS = find_programs()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(PROGRAMS is None, reason="needs PostgreSQL: apt-get install postgresql"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own user reaches, unlike pytest's."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


def test_a_run_is_recorded_in_postgres(folder: Path) -> None:
    pool = write_small_pool(folder / "pool.jsonl")
    with (
        start_postgres(folder / "db") as url,
        start_prefect(folder / "prefect", url) as environment,
    ):
        words = command(str(pool), str(folder / "store"), str(folder / "out"))
        finish(words, PREFECT_API_URL=environment["PREFECT_API_URL"])
        api = environment["PREFECT_API_URL"]
        [run] = httpx.post(f"{api}/flow_runs/filter", json={}).json()
        assert run["state_name"] == "Completed"
        until(lambda: count_recorded(api) >= 4, 60)  # load, scores, select, export
        assert PROGRAMS is not None
        plain = url.replace("+asyncpg", "")
        ask = [PROGRAMS / "psql", plain, "-Atc", "select state_name from flow_run"]
        rows = subprocess.run(ask, check=True, capture_output=True, text=True)
        assert rows.stdout.split() == ["Completed"]
    assert not (folder / "prefect" / "prefect.db").exists()
