"""Scoring by `causal_lm`, beside the original's way: one prompt at a time through `generate(max_new_tokens=2)`.

    python benchmarks/bench_scoring.py                                   lengths of a built-in distribution
    python benchmarks/bench_scoring.py --pool pool.jsonl --prompts 256   prompts of a pool
    python benchmarks/bench_scoring.py --device cuda --dtype bfloat16 --prompts 4096

One checkpoint (110M parameters, random), one process, the same prompts, the two timed in turns so that a busy machine slows both.
Printed for each kind: prompts a second of both and their ratio, tokens a second, and which share of the machine's own matrix-product rate,
measured in the same run, the multiplications that the prompts need come to.
The loop runs over `--loop` of the prompts, every n-th by length, and is held to the same scores.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import conversations, count_cpu_seconds, elapsed, matmul_ceiling, operations, random_llama

from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.records import KINDS, Kind, Pair
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.prompts import render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", help="a pool to take prompts from")
    parser.add_argument("--prompts", type=int, default=192)
    parser.add_argument("--loop", type=int, default=48, help="prompts that the loop runs over")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--cpu-seconds", action="store_true", help="one thread, timed by the processor: for a machine that is shared")
    options = parser.parse_args()
    if options.cpu_seconds:
        count_cpu_seconds()
    pairs = [pair for row in conversations(options.pool, options.prompts) for pair in row.pairs][: options.prompts]
    with tempfile.TemporaryDirectory() as folder:
        random_llama(Path(folder))
        for kind in KINDS:
            compare(Path(folder), kind, pairs, options)


def compare(folder: Path, kind: Kind, pairs: list[Pair], options: argparse.Namespace) -> None:
    scorer = load_scorer(
        "causal_lm", model=str(folder), kind=kind, dtype=options.dtype, device=options.device, batch_tokens=options.batch_tokens
    )
    tokenizer = load_tokenizer(find_checkpoint(str(folder)))
    texts = [render(kind, *pair).text for pair in pairs]
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts)]
    by_length = np.argsort(lengths, kind="stable")
    step = max(1, len(pairs) // options.loop)
    sample = by_length[step // 2 :: step]
    loop = OneByOne(folder, options, scorer.fingerprint()["digit_ids"])
    scorer.score(pairs[:2])  # loads
    loop.scores(texts[:2])

    ours, theirs, ceiling = np.inf, np.inf, 0.0
    for _ in range(options.rounds):
        ceiling = max(ceiling, matmul_ceiling(getattr(torch, options.dtype), options.device, 1.0))
        ours = min(ours, elapsed(lambda: scorer.score(pairs), options.device))
        theirs = min(theirs, elapsed(lambda: loop.scores([texts[i] for i in sample]), options.device))
    apart = np.abs(scorer.score(pairs)[sample] - loop.scores([texts[i] for i in sample])).max()

    print(f"\n{kind}: {len(pairs)} prompts, {np.mean(lengths):.0f} tokens on average, {np.median(lengths):.0f} in the median")
    print(f"  causal_lm          {len(pairs) / ours:8.2f} prompts/s  {sum(lengths) / ours:9.0f} tokens/s")
    print(f"  generate, one by one {len(sample) / theirs:6.2f} prompts/s   ({len(sample)} of them; scores apart by {apart:.1e} at most)")
    print(f"  ratio              {len(pairs) / ours / (len(sample) / theirs):8.1f}")
    share = operations(lengths) / ours / ceiling
    print(f"  matmul ceiling     {ceiling / 1e9:8.0f} GFLOP/s; share reached {share:.0%}")


class OneByOne:
    """What the original does with each prompt (its scorer/base.py)."""

    def __init__(self, folder: Path, options: argparse.Namespace, digits: list[int]) -> None:
        from transformers import AutoModelForCausalLM

        self.tokenizer = load_tokenizer(find_checkpoint(str(folder)))
        self.digits = digits
        self.device = options.device
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, options.dtype)).to(options.device).eval()

    def scores(self, texts: list[str]) -> Any:
        return np.array([self.score(text) for text in texts])

    def score(self, text: str) -> float:
        ids = torch.tensor([self.tokenizer.encode(text).ids], device=self.device)
        out = self.model.generate(ids, max_new_tokens=2, do_sample=False, return_dict_in_generate=True, output_scores=True, pad_token_id=0)
        logits = out.scores[0][0][self.digits].double()
        return float(logits.softmax(0) @ torch.arange(1.0, 7.0, dtype=torch.double, device=self.device))


if __name__ == "__main__":
    main()
