"""Counts how much of a pool is computed again when something about it changes.

    python benchmarks/bench_reuse.py
    python benchmarks/bench_reuse.py --pool pool_100k.jsonl.xz
    python benchmarks/bench_reuse.py --store s3://bucket/prefix

By default it generates 20,000 conversations and uses a store in a temporary folder. --pool takes
JSON Lines, also .xz.

The flow itself counts the rows. The length scorers stand in for the models: which rows are computed
does not depend on what computes them.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")

WORDS = "river stone garden number theory market letter window engine winter paper signal orbit"


def generate_conversations(rows: int, seed: int) -> list[str]:
    """Return conversations as JSON lines, no two alike."""
    rng = random.Random(seed)
    words = WORDS.split()
    lines = []
    for number in range(rows):
        instruction = " ".join(rng.choices(words, k=rng.randrange(5, 40)))
        response = " ".join(rng.choices(words, k=rng.randrange(5, 120)))
        messages = [
            {"role": "user", "content": f"{seed}-{number} {instruction}"},
            {"role": "assistant", "content": response},
        ]
        lines.append(json.dumps({"messages": messages}))
    return lines


def read_lines(pool: Path) -> list[str]:
    """Return the lines of a JSON Lines file."""
    open_text: Callable[..., Any] = lzma.open if pool.suffix == ".xz" else open
    with open_text(pool, "rt", encoding="utf-8", newline="\n") as handle:
        return [line.rstrip("\n") for line in handle]


class Run(NamedTuple):
    """One run of the flow: complexity scores computed and reused, and its seconds."""

    computed: int
    reused: int
    seconds: float


class ReuseBench:
    """One store, and runs over it."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.store = store
        self.runs = 0
        self._lines: Sequence[str] = ()

    def run(self, lines: Sequence[str]) -> Run:
        """Run the flow over these lines."""
        self._lines = lines
        self.runs += 1
        pool = self.folder / f"pool-{self.runs}.jsonl"
        pool.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return self._select(pool)

    def repeat(self) -> Run:
        """Run the flow over the last pool once more, under the same file name."""
        self.runs -= 1
        output = self.folder / f"out-{self.runs + 1}"
        output.rename(self.folder / f"old-{self.runs + 1}-{time.time_ns()}")
        return self.run(self._lines)

    def _select(self, pool: Path) -> Run:
        from deita_tasks.config import Advanced, Export, Scoring, Selection, Source
        from flows.select import select_subset

        start = time.perf_counter()
        manifest = select_subset(
            source=Source(input=[str(pool)], min_good_fraction=0),
            export=Export(output=str(self.folder / f"out-{self.runs}")),
            scoring=Scoring(complexity="instruction_length", quality="response_length"),
            selection=Selection(budget=1000, strategy="top_score"),
            advanced=Advanced(store=self.store),
        )
        seconds = time.perf_counter() - start
        computed = manifest["computed"]["complexity"]
        return Run(computed, manifest["reused"]["complexity"], seconds)


def print_row(name: str, at_most: str, run: Run) -> None:
    """Print a row of the table."""
    rows = run.computed + run.reused
    print(
        f"| {name} | {at_most} | {run.computed:,} of {rows:,} | {run.computed / rows:.2%} | "
        f"{run.seconds:.1f} |",
        flush=True,
    )


def run_scenarios(bench: ReuseBench, lines: list[str]) -> None:
    """Print the table, one row per scenario."""
    rng = random.Random(0)
    print("| | at most | rows computed | share | seconds |\n|---|---|---|---|---|")
    print_row("an empty store", "", bench.run(lines))
    print_row("the same pool again", "0%", bench.repeat())

    rows = delete_a_part(bench.store)
    print_row(f"one part of {rows:,} rows deleted", f"{rows:,} rows", bench.repeat())

    scattered = list(lines)
    for line in generate_conversations(len(lines) // 100, seed=1):
        scattered.insert(rng.randrange(len(scattered)), line)
    print_row("1% new rows scattered through it", "1.5%", bench.run(scattered))

    fewer = rng.sample(lines, len(lines) * 9 // 10)
    print_row("a tenth removed, the rest in another order", "0%", bench.run(fewer))

    half = len(lines) // 2
    half_new = rng.sample(lines, half) + generate_conversations(half, seed=2)
    rng.shuffle(half_new)
    print_row("another file that shares half its rows", "55%", bench.run(half_new))

    from deita_tasks.scoring.length import InstructionLength

    InstructionLength.VERSION = 99  # another fingerprint, as of another model or revision
    print_row("another revision of the scorer", "100%", bench.run(lines))
    InstructionLength.VERSION = 1
    print_row("the first revision again, beside it", "0%", bench.run(lines))


def delete_a_part(store: str) -> int:
    """Remove one part of the complexity scores; return its number of rows."""
    from deita_tasks import storage
    from deita_tasks.artifacts.inventory import list_artifacts
    from deita_tasks.artifacts.parts import PartSet

    scores = next(item for item in list_artifacts(store) if item.kind == "scores/complexity")
    part_set = PartSet(uri=storage.join(store, scores.folder), fingerprint=scores.digest)
    digest, ids = next(iter(part_set.index().items()))
    storage.remove(part_set.part(digest))
    return len(ids)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, help="JSON Lines, also .xz")
    parser.add_argument(
        "--rows", type=int, default=20_000, help="rows to generate, or to read from --pool"
    )
    parser.add_argument("--store", help="an empty folder or s3:// URI")
    options = parser.parse_args()
    if options.pool:
        lines = read_lines(options.pool)[: options.rows]
    else:
        lines = generate_conversations(options.rows, seed=0)
    with tempfile.TemporaryDirectory(prefix="deita-bench-") as folder:
        os.environ["PREFECT_HOME"] = f"{folder}/prefect"  # before Prefect is imported
        bench = ReuseBench(Path(folder), options.store or f"{folder}/store")
        run_scenarios(bench, lines)


if __name__ == "__main__":
    main()
