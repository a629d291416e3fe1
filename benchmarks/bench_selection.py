"""How near selection comes to the matrix products that it has to do, and how far it is from doing
them one row at a time.

    python benchmarks/bench_selection.py --rows 50000 --dimensions 384 --budget 10000
    python benchmarks/bench_selection.py --rows 300000 --dimensions 4096 --budget 10000 --dtype float16 --only diverse

The pool is synthetic: clusters about 1.25 times as many as the budget, so that about half of the
rows reached are too similar to a kept one, and evol scores at random. In one run, one after another
on the same pool:

- diverse: `load_selector("diverse")`, ids and scores and raw embeddings in, a Selection out.
- bare products: each row reached times the rows kept before it, in float32, on rows normalised beforehand, in the same blocks: what any
  exact method has to multiply. By NumPy's and by torch's BLAS; the ratio is to the faster one.
- plain loop: the sequential rule in torch, on rows normalised beforehand: one candidate against all
kept, one matrix-vector product each.
- original's loop: what the original program does at each step: gathers all kept rows (float64, as it reads them from lists), copies them
  to float32, divides them by their norms, twice, and multiplies.

The two loops take minutes, so every N-th step is timed (--every), with the kept rows that the step
would have found, and the sum is multiplied by N: an estimate, marked so. --every 1 times every
step. Each sampled decision is compared with that of `diverse`. The peak memory is that of a process
of its own, over what it holds after importing NumPy: ids, scores and buffers included, the
embeddings too unless they are mapped from a file (--map; always where they are over 1 GB).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deita_tasks.records import SelectorResult
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.ledger import TOO_SIMILAR, Rejections
from deita_tasks.selecting.similarity.exact import normalised
from deita_tasks.selecting.solve import solve

METHODS = ("diverse", "bare", "plain", "original")


def main() -> None:
    options = parse()
    if options.measure:
        print(json.dumps(measured_alone(options)))
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        options.pool = Path(folder) / "pool.npy"
        make_pool(options)
        (solve_pool if options.solve else report)(options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--max-similarity", type=float, default=0.9)
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--device", default="auto", help="of diverse: auto, cpu, cuda")
    parser.add_argument(
        "--map", action="store_true", help="map the embeddings from a file instead of holding them"
    )
    parser.add_argument("--only", default=",".join(METHODS), help="some of " + ",".join(METHODS))
    parser.add_argument(
        "--solve",
        action="store_true",
        help="time nothing but the search for the smallest limit that yields the budget",
    )
    parser.add_argument(
        "--every", type=int, default=25, metavar="N", help="time every N-th step of the two loops"
    )
    parser.add_argument(
        "--repeat",
        type=int,
        default=3,
        help="times of diverse and of the bare products, in turn; the median counts",
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="of the BLAS libraries and torch; 0 for theirs"
    )
    parser.add_argument(
        "--cpu-seconds",
        action="store_true",
        help="seconds of the processor, on one thread: for a machine that has other work",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", help="folder for the pool's file")
    parser.add_argument("--pool", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.clock = time.process_time if options.cpu_seconds else time.perf_counter
    options.threads = 1 if options.cpu_seconds else options.threads
    return options


def make_pool(options: argparse.Namespace) -> None:
    """Rows about cluster centres, at spreads that put two rows of a cluster at cosines of about
    0.85 to 0.99; written piece by piece.
    """
    rng = np.random.default_rng(options.seed)
    shape = options.rows, options.dimensions
    pool = np.lib.format.open_memmap(options.pool, mode="w+", dtype=options.dtype, shape=shape)
    centres = rng.standard_normal((options.budget * 5 // 4, options.dimensions), dtype=np.float32)
    for start in range(0, options.rows, 10_000):
        piece = pool[start : start + 10_000]
        spread = rng.uniform(0.1, 0.38, (len(piece), 1)).astype(np.float32)
        noise = rng.standard_normal(piece.shape, dtype=np.float32)
        piece[:] = centres[rng.integers(0, len(centres), len(piece))] + spread * noise


def load_pool(options: argparse.Namespace) -> tuple[list[str], NDArray[np.float64], NDArray[Any]]:
    mapped = options.map or options.pool.stat().st_size > 2**30
    rng = np.random.default_rng(options.seed + 1)
    ids = [f"{i:032x}" for i in range(options.rows)]
    return ids, rng.random(options.rows), np.load(options.pool, mmap_mode="r" if mapped else None)


def select(
    options: argparse.Namespace, pool: tuple[list[str], NDArray[np.float64], NDArray[Any]]
) -> SelectorResult:
    selector = load_selector(
        "diverse",
        budget=options.budget,
        max_similarity=options.max_similarity,
        device=options.device,
    )
    return selector.select(*pool)


def solve_pool(options: argparse.Namespace) -> None:
    """The seconds of `solve`, of which the bare selection at the limit that it finds is the least
    part.
    """
    pool = load_pool(options)
    select(options, (pool[0][:1000], pool[1][:1000], pool[2][:1000]))  # imports and thread pools
    started = options.clock()
    limit, kept = solve(*pool, options.budget, options.device)
    seconds = options.clock() - started
    options.max_similarity = limit
    started = options.clock()
    select(options, pool)
    print(
        f"n = {options.rows:,}, d = {options.dimensions}, budget {options.budget:,}: a limit "
        f"of {limit} yields {kept:,}",
        end="; ",
    )
    print(
        f"found in {seconds:.1f} s, one selection with it takes {options.clock() - started:.1f} s"
    )


def measured_alone(options: argparse.Namespace) -> dict[str, float]:
    """The peak resident memory of loading the ids and scores and selecting, over that of the
    interpreter with NumPy.
    """
    before = memory("VmRSS")
    pool = load_pool(options)
    started = time.perf_counter()
    select(options, pool)
    return {"seconds": time.perf_counter() - started, "gigabytes": memory("VmHWM") - before}


def memory(field: str) -> float:
    """A field of /proc/self/status, in GB (Linux)."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(field + ":")
    )
    return int(line.split()[1]) * 1024 / 1e9


class Trace:
    """What a finished selection did at each step: `reached` ranks in order, and how many rows were
    kept before each of them.
    """

    def __init__(self, selection: SelectorResult, scores: NDArray[np.float64]) -> None:
        assert isinstance(selection.rejected, Rejections)
        rejected = selection.rejected.positions[selection.rejected.codes == TOO_SIMILAR]
        self.reached = np.argsort(-scores, kind="stable")[: len(selection.kept) + len(rejected)]
        self.kept = ~np.isin(self.reached, rejected)
        self.kept_before = np.concatenate(([0], np.cumsum(self.kept)[:-1]))
        self.gigaflops = 2e-9 * float(self.kept_before.sum())  # of one dimension
        self.rejected_share = len(rejected) / len(self.reached)


def report(options: argparse.Namespace) -> None:
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if options.threads:
        threadpool_limits(options.threads)
        torch.set_num_threads(options.threads)
    wanted = options.only.split(",")
    pool = load_pool(options)
    select(options, (pool[0][:1000], pool[1][:1000], pool[2][:1000]))  # imports and thread pools
    selection = select(options, pool)
    trace = Trace(selection, pool[1])
    runs: dict[str, Callable[[], object]] = {"diverse": lambda: select(options, pool)}
    if "bare" in wanted:
        rows, _ = normalised(pool[2][trace.reached])
        for name, product in products().items():
            runs[f"bare {name}"] = partial(bare, rows, trace, product)
    seconds = in_turn(runs, options)
    if "bare" in wanted:
        seconds["bare products"] = min(seconds[name] for name in runs if name.startswith("bare "))
    if "plain" in wanted:
        seconds["plain loop"] = plain(
            rows if "bare" in wanted else normalised(pool[2][trace.reached])[0], trace, options
        )
    if "original" in wanted:
        seconds["original's loop"] = original(
            pool[2][trace.reached].astype(np.float64), trace, options
        )
    alone = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--measure", "--pool", str(options.pool)],
        capture_output=True,
        check=True,
    )
    show(options, selection, trace, seconds, json.loads(alone.stdout), torch.get_num_threads())


def in_turn(runs: dict[str, Callable[[], object]], options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of each run, all of them in turn, so that a busy moment of the machine falls
    on all.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeat):
        for name, run in runs.items():
            started = options.clock()
            run()
            times[name].append(options.clock() - started)
    return {name: float(np.median(taken)) for name, taken in times.items()}


Product = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], object]


def products() -> dict[str, Product]:
    import torch

    def by_torch(
        left: NDArray[np.float32], right: NDArray[np.float32], out: NDArray[np.float32]
    ) -> object:
        return torch.mm(
            torch.from_numpy(left), torch.from_numpy(right).T, out=torch.from_numpy(out)
        )

    return {"NumPy": lambda left, right, out: np.matmul(left, right.T, out=out), "torch": by_torch}


def bare(rows: NDArray[np.float32], trace: Trace, product: Product, block: int = 512) -> None:
    """Each row times those kept before it, a block at a time with the number kept at the block's
    middle, which gives the same sum.
    """
    kept = rows[trace.kept]
    buffer = np.empty(block * len(kept), np.float32)
    for start in range(0, len(rows), block):
        left = rows[start : start + block]
        count = int(trace.kept_before[start + len(left) // 2])
        product(left, kept[:count], buffer[: len(left) * count].reshape(len(left), count))


def plain(rows: NDArray[np.float32], trace: Trace, options: argparse.Namespace) -> float:
    import torch

    candidates, kept = torch.from_numpy(rows), torch.from_numpy(rows[trace.kept])

    def step(place: int) -> bool:
        similar = kept[: trace.kept_before[place]] @ candidates[place]
        return not len(similar) or float(similar.max()) <= options.max_similarity

    return sampled(step, trace, options, "plain loop")


def original(rows: NDArray[np.float64], trace: Trace, options: argparse.Namespace) -> float:
    import torch

    kept_places = np.flatnonzero(trace.kept)

    def step(place: int) -> bool:
        candidate = torch.tensor(rows[place : place + 1], dtype=torch.float32)
        existing = torch.tensor(rows[kept_places[: trace.kept_before[place]]], dtype=torch.float32)
        for _ in range(2):
            candidate, existing = (
                side / side.norm(dim=1, keepdim=True) for side in (candidate, existing)
            )
        return not bool((candidate @ existing.T > options.max_similarity).any())

    return sampled(step, trace, options, "original's loop")


def sampled(
    step: Callable[[int], bool], trace: Trace, options: argparse.Namespace, name: str
) -> float:
    """Seconds for all steps, from every N-th of them."""
    places = range(options.every // 2, len(trace.reached), options.every)
    started = options.clock()
    decisions = [step(place) for place in places]
    seconds = float(options.clock() - started) * len(trace.reached) / len(places)
    other = sum(
        decision != kept
        for decision, kept in zip(decisions, trace.kept[places.start :: places.step], strict=True)
    )
    print(
        f"{name}: {len(places):,} of {len(trace.reached):,} steps timed, {other} decided "
        "otherwise than diverse did",
        file=sys.stderr,
    )
    return seconds


def show(
    options: argparse.Namespace,
    selection: SelectorResult,
    trace: Trace,
    seconds: dict[str, float],
    alone: dict[str, float],
    threads: int,
) -> None:
    seconds_of = ", seconds of the processor" if options.cpu_seconds else ""
    print(
        f"n = {options.rows:,}, d = {options.dimensions} {options.dtype}, budget "
        f"{options.budget:,}, {threads} threads{seconds_of}"
    )
    print(
        f"{len(trace.reached):,} rows reached, {len(selection.kept):,} kept, "
        f"{trace.rejected_share:.0%} rejected at a limit of",
        end=" ",
    )
    print(
        f"{options.max_similarity}; {trace.gigaflops * options.dimensions:,.0f} GFLOP in the "
        "bare products\n"
    )
    print("| method | seconds | times diverse |\n|---|---|---|")
    for name, taken in seconds.items():
        estimated = " (estimated)" if "loop" in name and options.every > 1 else ""
        print(f"| {name} | {taken:,.2f}{estimated} | {taken / seconds['diverse']:,.2f} |")
    if "bare products" in seconds:
        print(
            f"\ndiverse takes {seconds['diverse'] / seconds['bare products']:.2f} times the "
            "bare products."
        )
    print(
        f"Alone in a process: {alone['seconds']:.2f} s, imports included, peak "
        f"{alone['gigabytes']:.2f} GB above the interpreter."
    )


if __name__ == "__main__":
    main()
