"""Scores a sample of a pool by IFD: speed, the share of 1 and more, the correlation with length.

    python benchmarks/bench_ifd.py --model SmolLM2-135M --pool pool.jsonl.xz --rows 100

The sample is drawn with a fixed seed. The correlation is Spearman's, of the IFD with the words of
the response.
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np
from scipy.stats import spearmanr

from deita_tasks.conversations import Conversation
from deita_tasks.loading import read_conversations
from deita_tasks.scoring import load_scorer
from deita_tasks.words import count_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="hub id or local folder")
    parser.add_argument("--pool", required=True)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    pool = [row for row in read_conversations(options.pool) if isinstance(row, Conversation)]
    sample = random.Random(0).sample(pool, options.rows)
    pairs = [pair for conversation in sample for pair in conversation.pairs]
    scorer = load_scorer("ifd", model=options.model, device=options.device)
    scorer.compute(pairs[:1])  # loads the model
    start = time.perf_counter()
    output = scorer.compute(pairs)
    seconds = time.perf_counter() - start
    has_value = np.isfinite(output.values)
    values = output.values[has_value]
    words = np.array([count_words(response) for _, response in pairs])[has_value]
    print(f"{len(pairs)} pairs of {len(sample)} rows, {len(pairs) / seconds:.2f} pairs/s")
    print(f"{len(pairs) - len(values)} without a value; {np.mean(values >= 1):.1%} at 1 or more")
    print(
        "quartiles:", " ".join(f"{value:.3f}" for value in np.quantile(values, (0.25, 0.5, 0.75)))
    )
    print(f"correlation with the words of the response: {spearmanr(values, words).statistic:.2f}")


if __name__ == "__main__":
    main()
