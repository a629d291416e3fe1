"""Times what strata, mixes and clusters add to a selection by `diverse`.

    python benchmarks/bench_mix.py --rows 110000 --dimensions 384 --budget 6000

The pool is that of bench_selection.py. Each row has one of twenty sources: the n-th of them has 1/n
of the rows of the first. One run selects from the same pool

- with no strata,
- with at most so many rows of each source (`strata`, `per_stratum`),
- by a mix of rows: three sources by share, one by a range, the others what is left,
- by the same mix of a budget in tokens, of rows of 50 to 2,000 tokens,
- by clusters: k-means first, then equal shares.

Prints the median seconds of each, the ratio to no strata, and the rows kept and passed over: a mix
goes further down the ranking, so it compares more rows.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_selection import SelectionInput, add_pool_options, load_pool, write_pool

from deita_tasks.records import SelectorResult
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.arrays import Indices
from deita_tasks.selecting.clusters import cluster_rows
from deita_tasks.selecting.rejections import TOO_SIMILAR, Rejections
from deita_tasks.selecting.strata import Sizes

SOURCES = 20
MIX = "source=s0:0.2,s1:0.2,s5:0.1,s9:0.05..0.1"
TOKENS = (50, 2_000)  # of a row, least and most


def draw_sources(rows: int, rng: np.random.Generator) -> list[str]:
    """Return the source of each row."""
    weights = 1 / np.arange(1, SOURCES + 1)
    numbers = rng.choice(SOURCES, rows, p=weights / weights.sum())
    return [f"s{number}" for number in numbers]


class Variants:
    """The selections that are timed, by name; each returns its result."""

    def __init__(self, pool: SelectionInput, budget: int, clusters: int) -> None:
        rng = np.random.default_rng(0)
        self.pool = pool
        self.budget = budget
        self.clusters = clusters
        self.sources = draw_sources(len(pool.ids), rng)
        self.tokens: Indices = rng.integers(*TOKENS, len(pool.ids), endpoint=True)

    def select(self, labels: Sequence[Any] | None = None, **options: Any) -> SelectorResult:
        """Select by `diverse`, with the strata of these labels if there are any."""
        strategy = load_selector("diverse", budget=self.budget, device="cpu", **options)
        strata = None if labels is None else strategy.divide(labels)
        return strategy.select(*self.pool, strata)

    def by_tokens(self) -> SelectorResult:
        """Select by the mix of as many tokens as `budget` rows have on average."""
        strategy = load_selector("diverse", budget=len(self.pool.ids), device="cpu", mix=MIX)
        sizes = Sizes(self.tokens, self.budget * sum(TOKENS) // 2)
        return strategy.select(*self.pool, strategy.divide(self.sources, sizes))

    def by_clusters(self) -> SelectorResult:
        """Select by equal shares of clusters, which are computed first."""
        labels = cluster_rows(self.pool.ids, self.pool.embeddings, self.clusters)
        return self.select(labels.tolist(), clusters=self.clusters)

    def all(self) -> dict[str, Callable[[], SelectorResult]]:
        """Return every variant by its name; the first is the one that others are compared with."""
        limit = max(1, self.budget // SOURCES)
        return {
            "no strata": self.select,
            f"at most {limit} rows a source": lambda: self.select(
                self.sources, strata="source", per_stratum=limit
            ),
            "mix of rows": lambda: self.select(self.sources, mix=MIX),
            "mix of tokens": self.by_tokens,
            f"{self.clusters} clusters": self.by_clusters,
        }


def time_all(variants: Variants, repeats: int) -> None:
    """Print a line for each variant."""
    seconds: dict[str, list[float]] = {}
    rows: dict[str, str] = {}
    for _ in range(repeats):
        for name, select in variants.all().items():
            start = time.perf_counter()
            result = select()
            seconds.setdefault(name, []).append(time.perf_counter() - start)
            assert isinstance(result.rejected, Rejections)
            similar = int(np.sum(result.rejected.codes == TOO_SIMILAR))
            rows[name] = f"{len(result.kept):,} kept, {similar:,} too similar"
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    base = medians["no strata"]
    for name, median in medians.items():
        print(f"{name:<28} {median:7.2f} s  {median / base:6.2f} times  {rows[name]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_pool_options(parser)
    parser.add_argument("--budget", type=int, default=6_000)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        options.pool = Path(folder) / "pool.npy"
        write_pool(options)
        pool = load_pool(options)
        time_all(Variants(pool, options.budget, options.clusters), options.repeat)


if __name__ == "__main__":
    main()
