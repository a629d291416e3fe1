"""Times what it costs to compare every file of the store with its digest, in warm runs.

    python benchmarks/bench_integrity.py
    python benchmarks/bench_integrity.py --rows 100000 --pairs 3

It generates a pool with vectors of 384 numbers and selects from it, so that the store has
everything. Then it selects again, by turns with the checks and without them, and prints the medians
and their ratio. Each run begins as a new process would: it remembers no digest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench_reuse import generate_conversations

DIMENSIONS = 384


def write_pool(folder: Path, rows: int) -> None:
    """Write pool.jsonl, and vectors.parquet with a vector for each of its rows."""
    lines = generate_conversations(rows, seed=0)
    (folder / "pool.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    vectors = np.random.default_rng(0).standard_normal((rows, DIMENSIONS), np.float32)
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSIONS)
    table = pa.table({"source_row": np.arange(1, rows + 1), "embedding": values})
    pq.write_table(table, folder / "vectors.parquet", row_group_size=4096)


def select(folder: Path, name: str) -> float:
    """Select from the pool; return the seconds."""
    from deita_tasks.config import Advanced, Embedding, Export, Scoring, Selection, Source
    from flows.select import select_subset

    start = time.perf_counter()
    select_subset(
        source=Source(input=[str(folder / "pool.jsonl")]),
        export=Export(output=str(folder / name)),
        scoring=Scoring(complexity="instruction_length", quality="response_length"),
        embedding=Embedding(embedding="provided", embeddings_file=str(folder / "vectors.parquet")),
        selection=Selection(budget=6000),
        advanced=Advanced(store=str(folder / "store")),
    )
    return time.perf_counter() - start


@contextmanager
def no_checks() -> Iterator[None]:
    """Take every file for what it should be."""
    with (
        mock.patch("deita_tasks.storage.check_file"),
        mock.patch("deita_tasks.storage.digests.check_file"),
        mock.patch("deita_tasks.artifacts.parts.PartSet.check"),
    ):
        yield


def main() -> None:
    """Print a table with the two medians and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    from deita_tasks.storage import digests

    seconds: dict[str, list[float]] = {"with checks": [], "without": []}
    with tempfile.TemporaryDirectory(prefix="bench-integrity-") as scratch:
        folder = Path(scratch)
        write_pool(folder, options.rows)
        print(f"first run: {select(folder, 'first'):.1f} s", flush=True)
        for pair in range(options.pairs):
            for name, times in seconds.items():
                digests._local_digests.clear()
                with no_checks() if name == "without" else nullcontext():
                    times.append(select(folder, f"{name} {pair}"))
    print("| warm run | seconds, median |\n|---|---|")
    for name, times in seconds.items():
        print(f"| {name} | {statistics.median(times):.1f} |")
    ratio = statistics.median(seconds["with checks"]) / statistics.median(seconds["without"])
    print(f"ratio {ratio:.3f}, {options.rows:,} rows")


if __name__ == "__main__":
    main()
