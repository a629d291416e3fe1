"""Times the mini scorers, and embedding by the encoder that one of them uses.

    python benchmarks/bench_mini.py
    python benchmarks/bench_mini.py --pool pool.jsonl --conversations 550

Without --pool, conversations have the lengths of a built-in distribution.

All run over the same conversations, in turns, so that a busy machine slows all; the medians of
`--rounds` are printed. The limit is the encoder alone, on the instructions' tokens in the same
batches: what complexity would cost without its counts and its head. With --bfloat16 complexity and
embedding run in that number type too, and the differences of the scores are printed.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from models import elapsed, parse_options, sample_conversations

from deita_tasks.embedding import load_embedder
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.mini.encoder import MiniEncoder


def main() -> None:
    options = parse_options(__doc__, "conversations", 550, raced=False, bfloat16=True)
    device, batch_tokens = options.device, options.batch_tokens
    rows = sample_conversations(options.pool, options.texts)
    quality, complexity = (
        load_scorer("mini", kind=kind, device=device, batch_tokens=batch_tokens)
        for kind in ("quality", "complexity")
    )
    embedder = load_embedder("sentence_transformers", device=device, batch_tokens=batch_tokens)
    encoder = MiniEncoder(device)
    instructions = [pair.instruction for row in rows for pair in row.pairs]

    def both() -> None:
        quality.compute_rows(rows)
        complexity.compute_rows(rows)

    runs: dict[str, Callable[[], object]] = {
        "quality": lambda: quality.compute_rows(rows),
        "complexity": lambda: complexity.compute_rows(rows),
        "both": both,
        "the encoder alone": lambda: encoder.states(instructions, batch_tokens),
        "embedding": lambda: embedder.compute(rows),
    }
    if options.bfloat16:
        short = {"device": device, "dtype": "bfloat16"}
        short_complexity = load_scorer("mini", kind="complexity", **short)
        short_embedder = load_embedder("sentence_transformers", **short)
        runs["complexity, bfloat16"] = lambda: short_complexity.compute_rows(rows)
        runs["embedding, bfloat16"] = lambda: short_embedder.compute(rows)
        pairs = [pair for row in rows for pair in row.pairs]
        moved = np.abs(short_complexity.score(pairs) - complexity.score(pairs))
        most, mean = moved.max(), moved.mean()
        print(f"bfloat16 moves a complexity by {most:.4f} at most, {mean:.4f} on average")
    seconds: dict[str, list[float]] = defaultdict(list)
    for number in range(options.rounds + 1):  # the first round loads the models
        for name, run in runs.items():
            run_seconds = elapsed(run, device)
            if number:
                seconds[name].append(run_seconds)
    print(
        f"{len(rows)} conversations with {len(instructions)} instructions; conversations/s, "
        f"median of {options.rounds} (slowest to fastest):"
    )
    for name, times in seconds.items():
        print(
            f"  {name:20} {len(rows) / statistics.median(times):8.0f}  "
            f"({len(rows) / max(times):.0f} to {len(rows) / min(times):.0f})"
        )


if __name__ == "__main__":
    main()
