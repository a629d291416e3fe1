"""Times decontamination: every row of a pool against evaluation prompts.

    python benchmarks/bench_decontamination.py --pool POOL
    python benchmarks/bench_decontamination.py --rows 20000 --prompts 5000

The prompts are first turns of the pool, half of them as they are and half with other words at the
end, so that many rows hold parts of them: a hard case. The loop beside it keeps the n-grams of the
prompts in a Python set of tuples and only says whether a row holds one of them; it runs over some
of the rows. Prints seconds, their ratio for equally many rows, and the memory of this process.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench_reuse import generate_conversations

from deita_tasks.artifacts.exclusions import write_contaminated
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.filtering.decontamination import EvaluationText, EvaluationTexts, OverlapRule
from deita_tasks.filtering.words import split_words
from deita_tasks.loading import read_conversations

WORDS = 13


def draw_prompts(pool: Pool, count: int) -> list[EvaluationText]:
    """Return so many first turns of the pool, every second with other words at its end."""
    rng = random.Random(0)
    positions = sorted(rng.sample(range(pool.summary.good), count))
    texts = []
    for number, (_, row) in enumerate(pool.read(positions)):
        end = f" variant number {number} of it" if number % 2 else ""
        text = row.turns[0].content + end
        texts.append(EvaluationText("prompts", number + 1, 1, "user", text))
    return texts


def loop(texts: Sequence[EvaluationText], rows: Sequence[Sequence[str]]) -> int:
    """Return how many rows hold an n-gram of the texts, by a set of tuples."""
    known = {gram for text in texts for gram in ngrams(text.text)}
    return sum(any(gram in known for turn in row for gram in ngrams(turn)) for row in rows)


def ngrams(text: str) -> list[tuple[str, ...]]:
    """Return the n-grams of a text."""
    words = split_words(text)
    return [tuple(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1)]


def megabytes() -> float:
    """Return the most memory that this process has used so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print a table with the seconds of both, and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", help="file of conversations; default: generated ones")
    parser.add_argument("--rows", type=int, default=100_000, help="rows to generate")
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument(
        "--loop-rows", type=int, default=10_000, help="rows that the loop runs over"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-decontamination-") as scratch:
        rows = options.pool or list(map(json.loads, generate_conversations(options.rows, seed=0)))
        uri = str(Path(scratch) / "pools" / "pool")
        write_pool(uri, read_conversations(rows), [])
        del rows
        pool = Pool.open(uri)
        prompts = draw_prompts(pool, options.prompts)
        before = megabytes()
        start = time.perf_counter()
        evaluation = EvaluationTexts(prompts, OverlapRule(WORDS))
        built = time.perf_counter()
        summary = write_contaminated(str(Path(scratch) / "exclusions" / "e"), pool, evaluation)
        end = time.perf_counter()
        memory = megabytes()
        positions = range(min(options.loop_rows, pool.summary.good))
        some = [[turn.content for turn in row.turns] for _, row in pool.read(positions)]
        loop_start = time.perf_counter()
        hits = loop(prompts, some)
        loop_seconds = time.perf_counter() - loop_start
        all_rows = len(pool.distinct[1])
    print(f"{all_rows:,} rows, {len(evaluation):,} distinct prompts: {summary.counts}")
    print(f"| index | {built - start:.1f} s |\n| rows | {end - built:.1f} s |")
    print(f"| memory of the process | {before:,.0f} MB before, {memory:,.0f} MB at most |")
    scaled = loop_seconds * all_rows / len(some)
    print(f"| loop | {loop_seconds:.1f} s for {len(some):,} rows, {hits:,} with a hit |")
    print(f"ratio {scaled / (end - start):.2f}, if the loop takes as long for every row")


if __name__ == "__main__":
    main()
