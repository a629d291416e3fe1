"""The mini scorers, by themselves and beside the embedding by the encoder under one of them.

    python benchmarks/bench_mini.py                                        lengths of a built-in distribution
    python benchmarks/bench_mini.py --pool pool.jsonl --conversations 550

The same conversations, in turns, so that a busy machine slows all; medians of `--rounds`. The limit
is the encoder by itself, on the instructions' tokens in the same batches: what complexity would
cost if nothing were counted and no head stood on it.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable

from models import conversations, elapsed, options

from deita_tasks.embedding import load_embedder
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.mini.encoder import MiniEncoder


def main() -> None:
    given = options(__doc__, "conversations", 550, raced=False)
    rows = conversations(given.pool, given.texts)
    quality, complexity = (
        load_scorer("mini", kind=kind, device=given.device, batch_tokens=given.batch_tokens)
        for kind in ("quality", "complexity")
    )
    embedder = load_embedder(
        "sentence_transformers", device=given.device, batch_tokens=given.batch_tokens
    )
    encoder = MiniEncoder(given.device)
    instructions = [pair.instruction for row in rows for pair in row.pairs]

    def both() -> None:
        quality.compute_rows(rows)
        complexity.compute_rows(rows)

    racers: dict[str, Callable[[], object]] = {
        "quality": lambda: quality.compute_rows(rows),
        "complexity": lambda: complexity.compute_rows(rows),
        "both": both,
        "the encoder alone": lambda: encoder.states(instructions, given.batch_tokens),
        "embedding": lambda: embedder.compute(rows),
    }
    seconds: dict[str, list[float]] = defaultdict(list)
    for turn in range(given.rounds + 1):  # the first loads models
        for name, run in racers.items():
            took = elapsed(run, given.device)
            if turn:
                seconds[name].append(took)
    print(
        f"{len(rows)} conversations with {len(instructions)} instructions; a second, median "
        f"of {given.rounds} (slowest to fastest):"
    )
    for name, times in seconds.items():
        print(
            f"  {name:18} {len(rows) / statistics.median(times):8.0f}  "
            f"({len(rows) / max(times):.0f} to {len(rows) / min(times):.0f})"
        )


if __name__ == "__main__":
    main()
