"""What a runner costs: to start, a shard, to end; and what two of its workers do in the time of
one.

    python benchmarks/bench_runners.py                                  all four, on a Prefect server of this run's own
    python benchmarks/bench_runners.py --runners process,ray --rows 0   the cost alone

A shard of the first table computes nothing: what it takes is Prefect's and the runner's, its
remembered result in the store included. The second table embeds generated conversations by MiniLM,
every worker with one thread, when each has loaded its model.
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
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")

from bench_reuse import generated
from prefect import flow, task

from deita_tasks import tasks
from deita_tasks.config import Advanced, Embedding, Scoring, Selection, Source
from deita_tasks.plan import plan_run
from deita_tasks.tasks.caching import CACHED, bind
from deita_tasks.tasks.stages import plan_stage

ROWS_A_SHARD = 8


@task(name="nothing", **CACHED)
def nothing(key: str) -> dict[str, Any]:
    """A shard without work."""
    return {"key": key}


@flow(result_serializer="json")
def cost(options: Advanced, shards: int) -> dict[str, float]:
    """Seconds until a first shard is done, for each of the next ones, and until the workers have
    ended.
    """
    bound = bind(nothing, options)
    begun = time.perf_counter()
    with tasks.ShardRunner(options, []) as crew:
        crew.map(bound, None, {"key": ["first"]}, {})[0].result()
        first = time.perf_counter()
        for future in crew.map(bound, None, {"key": [f"{number}" for number in range(shards)]}, {}):
            future.result()
        last = time.perf_counter()
    return {
        "start": first - begun,
        "shard": (last - first) / shards,
        "end": time.perf_counter() - last,
    }


@flow(result_serializer="json")
def throughput(options: Advanced, warm: str, pool: str) -> float:
    """Rows a second that the embedding stage does of `pool`, when the workers have loaded their
    models for the rows of `warm`.
    """
    rates: list[float] = []
    with tasks.ShardRunner(options, []) as crew:
        for path in (warm, pool):
            source = Source(input=[path])
            plan = plan_run(source, "mini", Scoring(), Embedding(), Selection(), None, options)
            loaded = tasks.load(plan, source, options)
            stage = tasks.stages(plan, options)[-1]
            work = plan_stage(stage, loaded, options)
            begun = time.perf_counter()
            rates.append(
                tasks.run_stage(stage, loaded, options, work, crew)["computed"]
                / (time.perf_counter() - begun)
            )
    return rates[-1]


def write_pool(path: Path, rows: int, seed: int) -> str:
    """`rows` generated conversations."""
    path.write_text("\n".join(generated(rows, seed)) + "\n", encoding="utf-8")
    return str(path)


def costs(runners: Sequence[str], shards: int, repeat: int) -> None:
    """Print the table of costs, a row a runner: medians."""
    print("| runner | first shard, s | a shard, ms | end, s |\n|---|---|---|---|")
    for runner in runners:
        found = []
        for _ in range(repeat):
            with tempfile.TemporaryDirectory() as store:
                found.append(cost(Advanced(store=store, runner=runner), shards))  # type: ignore[arg-type]
        start, shard, end = (
            statistics.median(one[name] for one in found) for name in ("start", "shard", "end")
        )
        print(f"| {runner} | {start:.1f} | {1000 * shard:.0f} | {end:.1f} |", flush=True)


def scaling(runners: Sequence[str], rows: int, repeat: int) -> None:
    """Print the table of throughputs, a row a runner: medians, and of the ratios of each round."""
    print("| runner | 1 worker, rows/s | 2 workers, rows/s | ratio |\n|---|---|---|---|")
    for runner in runners:
        rates: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(repeat):
            for workers in random.Random(turn).sample((1, 2), 2):
                with tempfile.TemporaryDirectory() as folder:
                    options = Advanced(
                        store=f"{folder}/store",
                        runner=runner,
                        workers=workers,
                        shard_rows=ROWS_A_SHARD,
                    )  # type: ignore[arg-type]
                    warm = write_pool(Path(folder) / "warm.jsonl", 4 * ROWS_A_SHARD, seed=1)
                    rates[workers].append(
                        throughput(
                            options, warm, write_pool(Path(folder) / "pool.jsonl", rows, seed=2)
                        )
                    )
        one, two = (statistics.median(rates[workers]) for workers in (1, 2))
        ratio = statistics.median(b / a for a, b in zip(rates[1], rates[2], strict=True))
        print(f"| {runner} | {one:.1f} | {two:.1f} | {ratio:.2f} |", flush=True)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runners", default="thread,process,dask,ray")
    parser.add_argument("--shards", type=int, default=60, help="shards without work")
    parser.add_argument("--rows", type=int, default=240, help="rows to embed; 0: none")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    runners = given.runners.split(",")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    if given.shards:
        costs(runners, given.shards, given.repeat)
    if given.rows:
        print()
        scaling([runner for runner in runners if runner != "thread"], given.rows, given.repeat)


if __name__ == "__main__":
    main()
