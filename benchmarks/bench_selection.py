"""Times `diverse` against the matrix products it needs, and against one row at a time.

    python benchmarks/bench_selection.py --rows 50000 --dimensions 384 --budget 10000
    python benchmarks/bench_selection.py --rows 300000 --dimensions 4096 --budget 10000 \\
        --dtype float16 --only diverse

The pool is synthetic: about 1.25 clusters per row of the budget, so that about half of the rows
reached are too similar to a kept one, and random evol scores. One run times, one after another on
the same pool:

diverse
    `load_selector("diverse")`: ids, scores and raw embeddings in, a SelectorResult out.
bare products
    Each row reached times the rows kept before it, in float32, in the same blocks, on rows
    normalised beforehand: what any exact method has to multiply. By NumPy's and by torch's BLAS;
    the ratio is to the faster one.
plain loop
    The sequential rule in torch, on rows normalised beforehand: one matrix-vector product per
    candidate, with all kept rows.
original's loop
    What the original program does at each step: gather all kept rows (float64, as it reads them
    from lists), copy them to float32, divide them by their norms, twice, and multiply.

The two loops take minutes. So only every N-th step is timed (--every), with the kept rows that the
step would have found, and the sum is multiplied by N; the table marks such estimates. --every 1
times every step. Each sampled decision is compared with that of `diverse`.

The peak memory is measured in a separate process, above what it holds after importing NumPy. It
includes ids, scores and buffers, and the embeddings too unless they are mapped from a file (--map;
always if they are over 1 GB).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deita_tasks.presets import DEFAULT_MAX_SIMILARITY
from deita_tasks.records import SelectorResult
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.arrays import Array, Doubles, Floats
from deita_tasks.selecting.rejections import TOO_SIMILAR, Rejections
from deita_tasks.selecting.similarity.exact import normalise_rows
from deita_tasks.selecting.solve import solve

METHODS = ("diverse", "bare", "plain", "original")
MAP_OVER_BYTES = 2**30


def main() -> None:
    options = parse_options()
    if options.measure:
        print(json.dumps(measure_memory(options)._asdict()))
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        options.pool = Path(folder) / "pool.npy"
        write_pool(options)
        if options.solve:
            report_solve(options)
        else:
            report(options)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_pool_options(parser)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--max-similarity", type=float, default=DEFAULT_MAX_SIMILARITY)
    parser.add_argument("--device", default="auto", help="for diverse: auto, cpu or cuda")
    parser.add_argument("--only", default=",".join(METHODS), help="some of " + ",".join(METHODS))
    parser.add_argument(
        "--solve",
        action="store_true",
        help="time only the search for the smallest limit that yields the budget",
    )
    parser.add_argument(
        "--every", type=int, default=25, metavar="N", help="time every N-th step of the two loops"
    )
    parser.add_argument(
        "--repeat", type=int, default=3, help="rounds of diverse and bare products; median counts"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="of the BLAS libraries and torch; 0: their default"
    )
    parser.add_argument(
        "--cpu-seconds",
        action="store_true",
        help="use one thread and measure CPU time; for a busy machine",
    )
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.clock = time.process_time if options.cpu_seconds else time.perf_counter
    options.threads = 1 if options.cpu_seconds else options.threads
    return options


def add_pool_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--map", action="store_true", help="map the embeddings from a file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", help="folder for the pool's file")
    parser.add_argument("--pool", type=Path, help=argparse.SUPPRESS)


class SelectionInput(NamedTuple):
    """What a strategy selects from."""

    ids: list[str]
    scores: Doubles
    embeddings: Array


def write_pool(options: argparse.Namespace) -> None:
    """Write rows about cluster centres, piece by piece.

    Their spreads put two rows of a cluster at cosines of about 0.85 to 0.99.
    """
    rng = np.random.default_rng(options.seed)
    shape = options.rows, options.dimensions
    pool = np.lib.format.open_memmap(options.pool, mode="w+", dtype=options.dtype, shape=shape)
    centres = rng.standard_normal((options.budget * 5 // 4, options.dimensions), dtype=np.float32)
    for start in range(0, options.rows, 10_000):
        piece = pool[start : start + 10_000]
        spread = rng.uniform(0.1, 0.38, (len(piece), 1)).astype(np.float32)
        noise = rng.standard_normal(piece.shape, dtype=np.float32)
        clusters = rng.integers(0, len(centres), len(piece))
        piece[:] = centres[clusters] + spread * noise


def load_pool(options: argparse.Namespace) -> SelectionInput:
    mapped = options.map or options.pool.stat().st_size > MAP_OVER_BYTES
    rng = np.random.default_rng(options.seed + 1)
    ids = [f"{i:032x}" for i in range(options.rows)]
    embeddings = np.load(options.pool, mmap_mode="r" if mapped else None)
    return SelectionInput(ids, rng.random(options.rows), embeddings)


def select(options: argparse.Namespace, pool: SelectionInput) -> SelectorResult:
    selector = load_selector(
        "diverse",
        budget=options.budget,
        max_similarity=options.max_similarity,
        device=options.device,
    )
    return selector.select(*pool)


def warm_up(options: argparse.Namespace, pool: SelectionInput) -> None:
    """Import everything and start the thread pools."""
    some = SelectionInput(pool.ids[:1000], pool.scores[:1000], pool.embeddings[:1000])
    select(options, some)


def report_solve(options: argparse.Namespace) -> None:
    """Print the seconds of `solve`, and of one selection at the limit that it finds."""
    pool = load_pool(options)
    warm_up(options, pool)
    start = options.clock()
    limit, kept = solve(*pool, options.budget, options.device)
    search_seconds = options.clock() - start
    options.max_similarity = limit
    start = options.clock()
    select(options, pool)
    selection_seconds = options.clock() - start
    print(
        f"n = {options.rows:,}, d = {options.dimensions}, budget {options.budget:,}: a limit of "
        f"{limit} yields {kept:,}; found in {search_seconds:.1f} s, one selection with it takes "
        f"{selection_seconds:.1f} s"
    )


class MemoryUse(NamedTuple):
    """Seconds and peak memory of loading ids and scores, and selecting."""

    seconds: float
    gigabytes: float


def measure_memory(options: argparse.Namespace) -> MemoryUse:
    """Return the peak resident memory above that of the interpreter with NumPy."""
    before = memory_gigabytes("VmRSS")
    pool = load_pool(options)
    start = time.perf_counter()
    select(options, pool)
    seconds = time.perf_counter() - start
    return MemoryUse(seconds, memory_gigabytes("VmHWM") - before)


def measure_memory_alone(options: argparse.Namespace) -> MemoryUse:
    """Run `measure_memory` in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", "--pool", str(options.pool)]
    process = subprocess.run(command, capture_output=True, check=True)
    return MemoryUse(**json.loads(process.stdout))


def memory_gigabytes(field: str) -> float:
    """Return a field of /proc/self/status, in GB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024 / 1e9


class Trace:
    """What a finished selection did at each step.

    reached: the ranks it reached, in order. kept: which of them it kept. kept_before: how many rows
    were kept before each.
    """

    def __init__(self, selection: SelectorResult, scores: Doubles) -> None:
        rejections = selection.rejected
        assert isinstance(rejections, Rejections)
        rejected = rejections.positions[rejections.codes == TOO_SIMILAR]
        count = len(selection.kept) + len(rejected)
        self.reached = np.argsort(-scores, kind="stable")[:count]
        self.kept = ~np.isin(self.reached, rejected)
        self.kept_before = np.concatenate(([0], np.cumsum(self.kept)[:-1]))
        self.gigaflops_per_dimension = 2e-9 * float(self.kept_before.sum())
        self.rejected_share = len(rejected) / len(self.reached)


def report(options: argparse.Namespace) -> None:
    """Time the methods, and print the table."""
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if options.threads:
        threadpool_limits(options.threads)
        torch.set_num_threads(options.threads)
    pool = load_pool(options)
    warm_up(options, pool)
    selection = select(options, pool)
    trace = Trace(selection, pool.scores)
    seconds = time_methods(options, pool, trace)
    print_pool(options, selection, trace, torch.get_num_threads())
    print_table(options, seconds)
    memory = measure_memory_alone(options)
    print(
        f"In a process of its own: {memory.seconds:.2f} s, imports included, peak "
        f"{memory.gigabytes:.2f} GB above the interpreter."
    )


def time_methods(
    options: argparse.Namespace, pool: SelectionInput, trace: Trace
) -> dict[str, float]:
    """Return the seconds of each method."""
    methods = options.only.split(",")
    runs: dict[str, Callable[[], object]] = {"diverse": lambda: select(options, pool)}
    if methods == ["diverse"]:
        return time_in_turn(runs, options)
    raw_rows = pool.embeddings[trace.reached]
    rows, _ = normalise_rows(raw_rows)
    if "bare" in methods:
        for name, product in list_products().items():
            runs[f"bare {name}"] = partial(multiply_bare, rows, trace, product)
    seconds = time_in_turn(runs, options)
    if "bare" in methods:
        seconds["bare products"] = min(seconds[name] for name in runs if name.startswith("bare "))
    if "plain" in methods:
        seconds["plain loop"] = time_plain_loop(rows, trace, options)
    if "original" in methods:
        wide_rows = raw_rows.astype(np.float64)
        seconds["original's loop"] = time_original_loop(wide_rows, trace, options)
    return seconds


def time_in_turn(
    runs: Mapping[str, Callable[[], object]], options: argparse.Namespace
) -> dict[str, float]:
    """Return the median seconds of each run; all in turn, so that a busy moment slows all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeat):
        for name, run in runs.items():
            start = options.clock()
            run()
            times[name].append(options.clock() - start)
    return {name: float(np.median(seconds)) for name, seconds in times.items()}


Product = Callable[[Floats, Floats, Floats], object]


def list_products() -> dict[str, Product]:
    """Return what computes left @ right.T into a buffer, by library."""
    import torch

    def by_numpy(left: Floats, right: Floats, out: Floats) -> object:
        return np.matmul(left, right.T, out=out)

    def by_torch(left: Floats, right: Floats, out: Floats) -> object:
        left_rows, right_rows = torch.from_numpy(left), torch.from_numpy(right)
        return torch.mm(left_rows, right_rows.T, out=torch.from_numpy(out))

    return {"NumPy": by_numpy, "torch": by_torch}


def multiply_bare(rows: Floats, trace: Trace, product: Product, block_rows: int = 512) -> None:
    """Multiply each row with those kept before it.

    A block is multiplied with the number kept at its middle, which gives the same sum.
    """
    kept = rows[trace.kept]
    buffer = np.empty(block_rows * len(kept), np.float32)
    for start in range(0, len(rows), block_rows):
        block = rows[start : start + block_rows]
        size = len(block)
        count = int(trace.kept_before[start + size // 2])
        out = buffer[: size * count].reshape(size, count)
        product(block, kept[:count], out)


def time_plain_loop(rows: Floats, trace: Trace, options: argparse.Namespace) -> float:
    import torch

    candidates, kept = torch.from_numpy(rows), torch.from_numpy(rows[trace.kept])

    def keeps(place: int) -> bool:
        similarities = kept[: trace.kept_before[place]] @ candidates[place]
        return not len(similarities) or float(similarities.max()) <= options.max_similarity

    return time_sampled_steps(keeps, trace, options, "plain loop")


def time_original_loop(rows: Doubles, trace: Trace, options: argparse.Namespace) -> float:
    import torch

    kept_places = np.flatnonzero(trace.kept)

    def normalise(tensor: torch.Tensor) -> torch.Tensor:
        normalised: torch.Tensor = tensor / tensor.norm(dim=1, keepdim=True)
        return normalised

    def keeps(place: int) -> bool:
        earlier = kept_places[: trace.kept_before[place]]
        candidate = torch.tensor(rows[place : place + 1], dtype=torch.float32)
        existing = torch.tensor(rows[earlier], dtype=torch.float32)
        for _ in range(2):
            candidate, existing = normalise(candidate), normalise(existing)
        return not bool((candidate @ existing.T > options.max_similarity).any())

    return time_sampled_steps(keeps, trace, options, "original's loop")


def time_sampled_steps(
    keeps: Callable[[int], bool], trace: Trace, options: argparse.Namespace, name: str
) -> float:
    """Return the seconds of all steps, estimated from every N-th of them."""
    steps = len(trace.reached)
    places = range(options.every // 2, steps, options.every)
    start = options.clock()
    decisions = [keeps(place) for place in places]
    seconds = float(options.clock() - start) * steps / len(places)
    expected = trace.kept[places.start :: places.step]
    different = sum(decision != kept for decision, kept in zip(decisions, expected, strict=True))
    print(
        f"{name}: {len(places):,} of {steps:,} steps timed, {different} decisions differ from "
        "those of diverse",
        file=sys.stderr,
    )
    return seconds


def print_pool(
    options: argparse.Namespace, selection: SelectorResult, trace: Trace, threads: int
) -> None:
    clock = ", CPU seconds" if options.cpu_seconds else ""
    gigaflops = trace.gigaflops_per_dimension * options.dimensions
    print(
        f"n = {options.rows:,}, d = {options.dimensions} {options.dtype}, budget "
        f"{options.budget:,}, {threads} threads{clock}"
    )
    print(
        f"{len(trace.reached):,} rows reached, {len(selection.kept):,} kept, "
        f"{trace.rejected_share:.0%} rejected at a limit of {options.max_similarity}; "
        f"{gigaflops:,.0f} GFLOP in the bare products\n"
    )


def print_table(options: argparse.Namespace, seconds: Mapping[str, float]) -> None:
    diverse = seconds["diverse"]
    print("| method | seconds | times diverse |\n|---|---|---|")
    for name, method_seconds in seconds.items():
        estimated = " (estimated)" if "loop" in name and options.every > 1 else ""
        print(f"| {name} | {method_seconds:,.2f}{estimated} | {method_seconds / diverse:,.2f} |")
    if "bare products" in seconds:
        ratio = diverse / seconds["bare products"]
        print(f"\ndiverse takes {ratio:.2f} times the bare products.")


if __name__ == "__main__":
    main()
