"""Scoring by `causal_lm`, beside the original's way: one prompt at a time through
`generate(max_new_tokens=2)`.

    python benchmarks/bench_scoring.py                                   lengths of a built-in distribution
    python benchmarks/bench_scoring.py --pool pool.jsonl --prompts 256   prompts of a pool
    python benchmarks/bench_scoring.py --device cuda --dtype bfloat16 --prompts 4096

One checkpoint (110M parameters, random), one process, the same prompts, the two timed in turns so
that a busy machine slows both. The loop runs over `--loop` of the prompts, every n-th by length,
and is held to the same scores.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from models import conversations, every_nth, options, race, random_llama

from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.records import SCORE_KINDS, Pair, ScoreKind
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.causal_lm import CausalLMScorer
from deita_tasks.scoring.prompts import render


def main() -> None:
    given = options(__doc__, "prompts", 192)
    pairs = [pair for row in conversations(given.pool, given.texts) for pair in row.pairs][
        : given.texts
    ]
    with tempfile.TemporaryDirectory() as folder:
        random_llama(Path(folder))
        for kind in SCORE_KINDS:
            compare(Path(folder), kind, pairs, given)


def compare(folder: Path, kind: ScoreKind, pairs: list[Pair], given: argparse.Namespace) -> None:
    where = {"dtype": given.dtype, "device": given.device, "batch_tokens": given.batch_tokens}
    scorer = load_scorer("causal_lm", model=str(folder), kind=kind, **where)
    assert isinstance(scorer, CausalLMScorer)
    texts = [render(kind, *pair).text for pair in pairs]
    ids = [one.ids for one in scorer._reader.get(scorer._read).tokens(pairs)]
    sample = every_nth([len(text) for text in ids], given.loop)
    digits = cast(list[int], scorer.fingerprint()["digit_ids"])
    loop = OneByOne(folder, given, digits)
    apart = np.abs(
        scorer.score([pairs[i] for i in sample]) - loop.scores([texts[i] for i in sample])
    ).max()
    model = scorer._model.get(scorer._load)
    race(
        kind,
        lambda: scorer.score(pairs),
        lambda: loop.scores([texts[i] for i in sample]),
        model,
        ids,
        sample,
        given,
    )
    print(f"  scores apart by {apart:.1e} at most")


class OneByOne:
    """What the original does with each prompt (its scorer/base.py): two tokens generated, for the
    logits of the first.

    A library of today computes lm_head for the last position alone, so this is faster than the
    original was.
    """

    def __init__(self, folder: Path, given: argparse.Namespace, digits: list[int]) -> None:
        from transformers import AutoModelForCausalLM

        self.tokenizer = load_tokenizer(find_checkpoint(str(folder)))
        self.digits = digits
        self.device = given.device
        self.model: Any = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, given.dtype))
            .to(given.device)
            .eval()
        )

    def scores(self, texts: list[str]) -> Any:
        return np.array([self.score(text) for text in texts])

    def score(self, text: str) -> float:
        ids = torch.tensor([self.tokenizer.encode(text).ids], device=self.device)
        out = self.model.generate(
            ids,
            max_new_tokens=2,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            pad_token_id=0,
        )
        logits = out.scores[0][0][self.digits].double()
        return float(
            logits.softmax(0) @ torch.arange(1.0, 7.0, dtype=torch.double, device=self.device)
        )


if __name__ == "__main__":
    main()
