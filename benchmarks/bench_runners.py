"""Measures what a task runner costs, and what two of its workers do in the time of one.

    python benchmarks/bench_runners.py
    python benchmarks/bench_runners.py --runners process,ray --rows 0

The first table is the cost of starting, of a shard, and of ending. Its shards compute nothing: the
time is Prefect's and the runner's, and includes storing the result. --rows 0 prints only this
table. The second table embeds generated conversations by MiniLM, with one thread per worker, once
each worker has loaded the model.

The benchmark starts its own Prefect server.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")

from bench_reuse import generate_conversations
from prefect import flow, task

from deita_tasks import tasks
from deita_tasks.config import Advanced, Embedding, Scoring, Selection, Source
from deita_tasks.plan import plan_run
from deita_tasks.tasks.caching import CACHED, bind
from deita_tasks.tasks.stages import plan_stage

ROWS_PER_SHARD = 8


class Costs(NamedTuple):
    """Seconds until a first shard is done, per shard after it, and until the workers have ended."""

    start: float
    shard: float
    end: float


@task(name="nothing", **CACHED)
def do_nothing(key: str) -> dict[str, str]:
    """A shard without work."""
    return {"key": key}


@flow(result_serializer="json")
def measure_costs(options: Advanced, shards: int) -> Costs:
    """Return the costs of a runner."""
    bound_task = bind(do_nothing, options)
    keys = [f"{number}" for number in range(shards)]
    begin = time.perf_counter()
    with tasks.ShardRunner(options, []) as runner:
        runner.map(bound_task, None, {"key": ["first"]}, {})[0].result()
        first = time.perf_counter()
        for future in runner.map(bound_task, None, {"key": keys}, {}):
            future.result()
        last = time.perf_counter()
    return Costs(first - begin, (last - first) / shards, time.perf_counter() - last)


@flow(result_serializer="json")
def measure_throughput(options: Advanced, warm_up: str, pool: str) -> float:
    """Return the rows per second that the embedding stage does of `pool`.

    The workers load their models for the rows of `warm_up`.
    """
    rates: list[float] = []
    with tasks.ShardRunner(options, []) as runner:
        for path in (warm_up, pool):
            source = Source(input=[path])
            plan = plan_run(source, "mini", Scoring(), Embedding(), Selection(), None, options)
            with tasks.open_pool(plan, source, options) as loaded:
                stage = tasks.list_stages(plan, options)[-1]
                work = plan_stage(stage, loaded, options)
                begin = time.perf_counter()
                result = tasks.run_stage(stage, loaded, options, work, runner)
                rates.append(result.computed / (time.perf_counter() - begin))
    return rates[-1]


def write_pool(path: Path, rows: int, seed: int) -> str:
    """Write `rows` generated conversations; return the path."""
    lines = generate_conversations(rows, seed)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def print_costs(runners: Sequence[str], shards: int, repeat: int) -> None:
    """Print the table of costs, one row per runner: medians."""
    print("| runner | first shard, s | a shard, ms | end, s |\n|---|---|---|---|")
    for runner in runners:
        rounds = []
        for _ in range(repeat):
            with tempfile.TemporaryDirectory() as store:
                options = Advanced(store=store, runner=runner)  # type: ignore[arg-type]
                rounds.append(measure_costs(options, shards))
        start, shard, end = (statistics.median(times) for times in zip(*rounds, strict=True))
        print(f"| {runner} | {start:.1f} | {1000 * shard:.0f} | {end:.1f} |", flush=True)


def print_throughputs(runners: Sequence[str], rows: int, repeat: int) -> None:
    """Print the table of throughputs, one row per runner: medians, and of each round's ratio."""
    print("| runner | 1 worker, rows/s | 2 workers, rows/s | ratio |\n|---|---|---|---|")
    for runner in runners:
        rates: dict[int, list[float]] = {1: [], 2: []}
        for number in range(repeat):
            for workers in random.Random(number).sample((1, 2), 2):
                rates[workers].append(run_throughput(runner, workers, rows))
        single, double = statistics.median(rates[1]), statistics.median(rates[2])
        ratios = [after / before for before, after in zip(rates[1], rates[2], strict=True)]
        ratio = statistics.median(ratios)
        print(f"| {runner} | {single:.1f} | {double:.1f} | {ratio:.2f} |", flush=True)


def run_throughput(runner: str, workers: int, rows: int) -> float:
    """Return the rows per second of this many workers, with a new store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = Advanced(
            store=f"{folder}/store",
            runner=runner,  # type: ignore[arg-type]
            workers=workers,
            shard_rows=ROWS_PER_SHARD,
        )
        warm_up = write_pool(folder / "warm.jsonl", 4 * ROWS_PER_SHARD, seed=1)
        pool = write_pool(folder / "pool.jsonl", rows, seed=2)
        return measure_throughput(options, warm_up, pool)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runners", default="thread,process,dask,ray", help="separated by commas")
    parser.add_argument("--shards", type=int, default=60, help="shards without work; 0: skip")
    parser.add_argument("--rows", type=int, default=240, help="rows to embed; 0: skip")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    runners = options.runners.split(",")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    if options.shards:
        print_costs(runners, options.shards, options.repeat)
    if options.rows:
        print()
        remote_runners = [runner for runner in runners if runner != "thread"]
        print_throughputs(remote_runners, options.rows, options.repeat)


if __name__ == "__main__":
    main()
