"""How much of a pool is computed again when something about it changes: the rows of the model work,
counted by the flow itself.

    python benchmarks/bench_reuse.py                            20,000 generated conversations, a store in a temporary folder
    python benchmarks/bench_reuse.py --pool pool_100k.jsonl.xz  one's own JSON Lines, also .xz
    python benchmarks/bench_reuse.py --store s3://bucket/prefix

The length scorers stand for the models: which rows are computed does not depend on what computes
them.
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
from typing import Any

os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")

WORDS = (
    "river",
    "stone",
    "garden",
    "number",
    "theory",
    "market",
    "letter",
    "window",
    "engine",
    "winter",
    "paper",
    "signal",
    "orbit",
)


def generated(rows: int, seed: int) -> list[str]:
    """JSON lines of conversations, no two alike."""
    dice = random.Random(seed)
    texts = [
        (
            dice.choices(WORDS, k=dice.randrange(5, 40)),
            dice.choices(WORDS, k=dice.randrange(5, 120)),
        )
        for _ in range(rows)
    ]
    return [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"{seed}-{n} {' '.join(q)}"},
                    {"role": "assistant", "content": " ".join(a)},
                ]
            }
        )
        for n, (q, a) in enumerate(texts)
    ]


def lines_of(pool: Path) -> list[str]:
    """The lines of a JSON Lines file."""
    opened: Callable[..., Any] = lzma.open if pool.suffix == ".xz" else open
    with opened(pool, "rt", encoding="utf-8", newline="\n") as handle:
        return [line.rstrip("\n") for line in handle]


class Bench:
    """One store, and runs over it."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder, self.store, self.runs = folder, store, 0

    def run(self, lines: Sequence[str]) -> tuple[dict[str, Any], float]:
        """The flow over these lines; its manifest, and the seconds it took."""
        from deita_tasks.config import Advanced, Export, Scoring, Selection, Source
        from flows.select import select_subset

        self.runs += 1
        pool = self.folder / f"pool-{self.runs}.jsonl"
        pool.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return self.timed(
            lambda: select_subset(
                source=Source(input=[str(pool)], min_good_fraction=0),
                export=Export(output=str(self.folder / f"out-{self.runs}")),
                scoring=Scoring(complexity="instruction_length", quality="response_length"),
                selection=Selection(budget=1000, strategy="top_score"),
                advanced=Advanced(store=self.store),
            )
        )

    def again(self) -> tuple[dict[str, Any], float]:
        """The last pool once more, untouched."""
        self.runs -= 1
        pool = self.folder / f"pool-{self.runs + 1}.jsonl"
        os.rename(
            self.folder / f"out-{self.runs + 1}",
            self.folder / f"old-{self.runs + 1}-{time.time_ns()}",
        )
        return self.run(pool.read_text(encoding="utf-8").rstrip("\n").split("\n"))

    @staticmethod
    def timed(work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
        start = time.perf_counter()
        manifest = work()
        return manifest, time.perf_counter() - start


def scenarios(bench: Bench, lines: list[str]) -> None:
    """Print the table, a row a scenario."""
    dice = random.Random(0)

    def tell(name: str, limit: str, result: tuple[dict[str, Any], float]) -> None:
        manifest, seconds = result
        computed, reused = manifest["computed"]["complexity"], manifest["reused"]["complexity"]
        print(
            f"| {name} | {limit} | {computed:,} of {computed + reused:,} | "
            f"{computed / (computed + reused):.2%} | {seconds:.1f} |",
            flush=True,
        )

    print("| | at most | rows computed | share | seconds |\n|---|---|---|---|---|")
    tell("an empty store", "", bench.run(lines))
    tell("the same pool again", "0%", bench.again())

    rows = delete_a_part(bench.store)
    tell(f"one part of {rows:,} rows deleted", f"{rows:,} rows", bench.again())

    new = generated(len(lines) // 100, seed=1)
    scattered = list(lines)
    for line in new:
        scattered.insert(dice.randrange(len(scattered)), line)
    tell("1% new rows scattered through it", "1.5%", bench.run(scattered))

    fewer = dice.sample(lines, len(lines) * 9 // 10)
    tell("a tenth removed, the rest in another order", "0%", bench.run(fewer))

    half = len(lines) // 2
    other = dice.sample(lines, half) + generated(half, seed=2)
    dice.shuffle(other)
    tell("another file that shares half its rows", "55%", bench.run(other))

    from deita_tasks.scoring.length import InstructionLength

    InstructionLength.VERSION = 99  # as another model or revision: another fingerprint
    tell("another revision of the scorer", "100%", bench.run(lines))
    InstructionLength.VERSION = 1
    tell("the first revision again, beside it", "0%", bench.run(lines))


def delete_a_part(store: str) -> int:
    """Remove one part of the complexity scores; its rows."""
    from deita_tasks import storage
    from deita_tasks.artifacts.inventory import artifacts
    from deita_tasks.artifacts.parts import PartSet

    found = next(one for one in artifacts(store) if one.kind == "scores/complexity")
    family = PartSet(storage.join(store, found.folder), found.digest)
    digest, ids = next(iter(family.index().items()))
    storage.remove(family.part(digest))
    return len(ids)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, help="JSON Lines, also .xz")
    parser.add_argument(
        "--rows", type=int, default=20_000, help="rows to generate without --pool, or to take of it"
    )
    parser.add_argument("--store", help="a folder or s3:// URI; must be empty")
    given = parser.parse_args()
    lines = (lines_of(given.pool) if given.pool else generated(given.rows, seed=0))[: given.rows]
    with tempfile.TemporaryDirectory(prefix="deita-bench-") as folder:
        os.environ["PREFECT_HOME"] = f"{folder}/prefect"  # before Prefect is imported
        scenarios(Bench(Path(folder), given.store or f"{folder}/store"), lines)


if __name__ == "__main__":
    main()
