"""Times scoring by `causal_lm` against the original's way: one prompt at a time.

    python benchmarks/bench_scoring.py
    python benchmarks/bench_scoring.py --pool pool.jsonl --prompts 256
    python benchmarks/bench_scoring.py --device cuda --dtype bfloat16 --prompts 4096

Without --pool, prompts have the lengths of a built-in distribution.

The original's loop calls `generate(max_new_tokens=2)` for each prompt. Both use one checkpoint
(110M parameters, random weights), one process and the same prompts, and are timed in turns, so that
a busy machine slows both. The loop runs over `--loop` of the prompts, every n-th by length, and its
scores are compared with ours.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from models import every_nth, parse_options, race, sample_conversations, save_random_llama

from deita_tasks.conversations import Pair
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.records import SCORE_KINDS, ScoreKind
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.causal_lm import CausalLMScorer
from deita_tasks.scoring.prompts import render


def main() -> None:
    options = parse_options(__doc__, "prompts", 192)
    rows = sample_conversations(options.pool, options.texts)
    pairs = [pair for row in rows for pair in row.pairs][: options.texts]
    with tempfile.TemporaryDirectory() as folder:
        save_random_llama(Path(folder))
        for kind in SCORE_KINDS:
            compare(Path(folder), kind, pairs, options)


def compare(folder: Path, kind: ScoreKind, pairs: list[Pair], options: argparse.Namespace) -> None:
    scorer = load_scorer(
        "causal_lm",
        model=str(folder),
        kind=kind,
        dtype=options.dtype,
        device=options.device,
        batch_tokens=options.batch_tokens,
    )
    assert isinstance(scorer, CausalLMScorer)
    texts = [render(kind, *pair).text for pair in pairs]
    ids = [prompt.ids for prompt in scorer.encoder.tokenize(pairs)]
    sample = every_nth([len(text) for text in ids], options.loop)
    sample_pairs, sample_texts = [pairs[i] for i in sample], [texts[i] for i in sample]
    digits = cast(list[int], scorer.fingerprint()["digit_ids"])
    loop = OneByOneScorer(folder, options, digits)
    difference = np.abs(scorer.score(sample_pairs) - loop.score_all(sample_texts)).max()
    model = scorer._model.get(scorer._load_model)
    race(
        kind,
        lambda: scorer.score(pairs),
        lambda: loop.score_all(sample_texts),
        model,
        ids,
        sample,
        options,
    )
    print(f"  scores differ by {difference:.1e} at most")


class OneByOneScorer:
    """What the original does with each prompt (its scorer/base.py).

    It generates two tokens, for the logits of the first. A current library computes lm_head for the
    last position alone, so this is faster than the original was.
    """

    def __init__(self, folder: Path, options: argparse.Namespace, digits: list[int]) -> None:
        from transformers import AutoModelForCausalLM

        dtype = getattr(torch, options.dtype)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self.tokenizer = load_tokenizer(find_checkpoint(str(folder)))
        self.digits = digits
        self.device = options.device
        self.model = model.to(options.device).eval()

    def score_all(self, texts: list[str]) -> Any:
        return np.array([self.score(text) for text in texts])

    def score(self, text: str) -> float:
        ids = torch.tensor([self.tokenizer.encode(text).ids], device=self.device)
        output = self.model.generate(
            ids,
            max_new_tokens=2,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            pad_token_id=0,
        )
        logits = output.scores[0][0][self.digits].double()
        grades = torch.arange(1.0, 7.0, dtype=torch.double, device=self.device)
        return float(logits.softmax(0) @ grades)


if __name__ == "__main__":
    main()
