"""Prefect's server on SQLite and on PostgreSQL: a run of 600 tasks, and the tasks it records.

    python -m benchmarks.bench_databases

A task is a shard that computes nothing, so what is measured is the server. For each database: how
long the run takes, how long until the server has recorded the last of its tasks, and the longest
that a request of another client (a form, a page of the UI) had to wait meanwhile. Both servers are
started by the script, one after the other, with empty databases.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import httpx

from tests.support.postgres import start_postgres, start_prefect

RUN = "import sys; from benchmarks.bench_databases import run; run(int(sys.argv[1]))"
PATIENCE = 300  # seconds for an answer of the server
QUIET = 30  # seconds without a new record, after which none is expected


def run(tasks: int) -> None:
    """Run a flow of so many tasks in this process, ten at a time."""
    from prefect import flow, task
    from prefect.task_runners import ThreadPoolTaskRunner

    @task(result_serializer="json")
    def shard(number: int) -> int:
        return number

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=10), result_serializer="json")  # type: ignore[arg-type]
    def shards() -> None:
        for future in [shard.submit(number) for number in range(tasks)]:
            future.result()

    shards()


@contextmanager
def longest_wait(api: str) -> Iterator[list[float]]:
    """Ask for the runs again and again; the list holds the seconds of each request."""
    waits: list[float] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.2):
            start = time.perf_counter()
            httpx.post(f"{api}/flow_runs/filter", json={"limit": 10}, timeout=PATIENCE)
            waits.append(time.perf_counter() - start)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield waits
    finally:
        ended.set()
        thread.join()


def count_recorded(api: str) -> int:
    """Return how many task runs the server has recorded as completed."""
    completed = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    return int(httpx.post(f"{api}/task_runs/count", json=completed, timeout=PATIENCE).json())


def wait_for_records(api: str, tasks: int) -> tuple[int, float]:
    """Return how many tasks the server records, and when it had recorded the last of them."""
    recorded, last = 0, time.perf_counter()
    while recorded < tasks and time.perf_counter() < last + QUIET:
        found = count_recorded(api)
        if found > recorded:
            recorded, last = found, time.perf_counter()
        time.sleep(0.2)
    return recorded, last


def measure(environment: dict[str, str], tasks: int) -> str:
    """Return a line of the table: what a run of so many tasks takes on this server."""
    api = environment["PREFECT_API_URL"]
    variables = {**environment, "PREFECT_LOGGING_LEVEL": "ERROR", "PYTHONPATH": os.getcwd()}
    with longest_wait(api) as waits:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", RUN, str(tasks)], env=variables, check=True)
        seconds = time.perf_counter() - start
        recorded, last_seconds = wait_for_records(api, tasks)
        all_seconds = last_seconds - start
    lost = f", {tasks - recorded} never" if recorded < tasks else ""
    return (
        f"{seconds:6.1f} s  {tasks / seconds:5.1f} tasks/s  last record after {all_seconds:5.1f} s"
        f" ({recorded / all_seconds:5.1f} a second{lost})  longest request {max(waits):5.2f} s"
    )


def main() -> None:
    """Measure both databases, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # PostgreSQL's user has to reach its own folder in it
        for name in ("SQLite", "PostgreSQL"):
            root = Path(folder, name)
            database = start_postgres(root / "db") if name == "PostgreSQL" else nullcontext()
            with database as url, start_prefect(root / "prefect", url) as environment:
                print(f"{name:10}  {measure(environment, options.tasks)}", flush=True)


if __name__ == "__main__":
    main()
