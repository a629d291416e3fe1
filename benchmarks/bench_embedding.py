"""Embedding by `causal_lm`, beside one conversation at a time through the whole model; and by
`sentence_transformers`.

    python benchmarks/bench_embedding.py                                        lengths of a built-in distribution
    python benchmarks/bench_embedding.py --pool pool.jsonl --conversations 512
    python benchmarks/bench_embedding.py --device cuda --dtype bfloat16 --conversations 4096

One checkpoint (110M parameters, random), one process, the same conversations, timed in turns so
that a busy machine slows both. The loop is the original's embedder at batch size 1: the whole
model, the logits of every position and all hidden states, of which it keeps one row. It runs over
`--loop` of the conversations, every n-th by length, and is held to the same vectors.
all-MiniLM-L6-v2 is timed beside its library's own `encode` with its default batches.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import conversations, elapsed, every_nth, options, race, random_llama

from deita_tasks.embedding import load_embedder
from deita_tasks.embedding.causal_lm import CausalLMEmbedder
from deita_tasks.embedding.sentence_transformers import SentenceTransformersEmbedder
from deita_tasks.embedding.sentence_transformers import render as plain_text
from deita_tasks.presets import MINILM
from deita_tasks.records import Conversation


def main() -> None:
    given = options(__doc__, "conversations", 192)
    rows = conversations(given.pool, given.texts)
    with tempfile.TemporaryDirectory() as folder:
        causal_lm(random_llama(Path(folder)), rows, given)
    sentence_transformers(rows, given)


def causal_lm(folder: Path, rows: list[Conversation], given: argparse.Namespace) -> None:
    where = {"dtype": given.dtype, "device": given.device, "batch_tokens": given.batch_tokens}
    embedder = load_embedder("causal_lm", model=str(folder), **where)
    assert isinstance(embedder, CausalLMEmbedder)
    ids = [text[: embedder.max_length] for text in embedder._tokens(rows)]
    sample = every_nth([len(text) for text in ids], given.loop)
    loop = OneByOne(folder, given)
    apart = np.abs(
        embedder.embed([rows[i] for i in sample]) - loop.embed([ids[i] for i in sample])
    ).max()
    model = embedder._model.get(embedder._load)
    race(
        "embedding",
        lambda: embedder.embed(rows),
        lambda: loop.embed([ids[i] for i in sample]),
        model,
        ids,
        sample,
        given,
    )
    print(f"  vectors apart by {apart:.1e} at most")


class OneByOne:
    """What the original does at batch size 1 (its embedder/clm_embedder.py), without the gradients
    that it keeps.
    """

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        from transformers import AutoModelForCausalLM

        self.device = given.device
        self.model: Any = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, given.dtype))
            .to(given.device)
            .eval()
        )

    @torch.no_grad()
    def embed(self, texts: list[list[int]]) -> Any:
        vectors = []
        for ids in texts:
            output = self.model(torch.tensor([ids], device=self.device), output_hidden_states=True)
            vectors.append(output.hidden_states[-1][0, -1].float().cpu().numpy())
        return np.array(vectors)


def sentence_transformers(rows: list[Conversation], given: argparse.Namespace) -> None:
    embedder = SentenceTransformersEmbedder(device=given.device, batch_tokens=given.batch_tokens)
    embedder.embed(rows[:2])
    model = embedder._loaded.get(embedder._load)
    texts = [plain_text(row) for row in rows]
    ours, theirs = np.inf, np.inf
    for _ in range(given.rounds):
        ours = min(ours, elapsed(lambda: embedder.embed(rows), given.device))
        theirs = min(
            theirs, elapsed(lambda: model.encode(texts, show_progress_bar=False), given.device)
        )
    print(
        f"\nsentence_transformers, {MINILM}, float32: {len(rows) / ours:.1f} conversations/s "
        f"({len(rows) / theirs:.1f} by its `encode`)"
    )


if __name__ == "__main__":
    main()
