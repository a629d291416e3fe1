"""Times embedding by `causal_lm` and by `sentence_transformers`.

    python benchmarks/bench_embedding.py
    python benchmarks/bench_embedding.py --pool pool.jsonl --conversations 512
    python benchmarks/bench_embedding.py --device cuda --dtype bfloat16 --conversations 4096

Without --pool, conversations have the lengths of a built-in distribution.

`causal_lm` races against the original's embedder at batch size 1: the whole model, the logits of
every position and all hidden states, of which it keeps one row. Both use one checkpoint (110M
parameters, random weights), one process and the same conversations, and are timed in turns, so that
a busy machine slows both. The loop runs over `--loop` of the conversations, every n-th by length,
and its vectors are compared with ours.

all-MiniLM-L6-v2 is timed with `long_texts` windows and beginning, and against its library's own
`encode` with its default batches, which reads the beginning.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import elapsed, every_nth, parse_options, race, sample_conversations, save_random_llama

from deita_tasks.conversations import Conversation
from deita_tasks.embedding import load_embedder
from deita_tasks.embedding.causal_lm import CausalLMEmbedder
from deita_tasks.embedding.sentence_transformers import SentenceTransformersEmbedder
from deita_tasks.embedding.sentence_transformers import render as plain_text
from deita_tasks.presets import MINILM


def main() -> None:
    options = parse_options(__doc__, "conversations", 192)
    rows = sample_conversations(options.pool, options.texts)
    with tempfile.TemporaryDirectory() as folder:
        time_causal_lm(save_random_llama(Path(folder)), rows, options)
    time_sentence_transformers(rows, options)


def time_causal_lm(folder: Path, rows: list[Conversation], options: argparse.Namespace) -> None:
    embedder = load_embedder(
        "causal_lm",
        model=str(folder),
        dtype=options.dtype,
        device=options.device,
        batch_tokens=options.batch_tokens,
    )
    assert isinstance(embedder, CausalLMEmbedder)
    ids = [text.ids for text in embedder._tokenize(rows)]
    sample = every_nth([len(text) for text in ids], options.loop)
    sample_rows, sample_ids = [rows[i] for i in sample], [ids[i] for i in sample]
    loop = OneByOneEmbedder(folder, options)
    difference = np.abs(embedder.embed(sample_rows) - loop.embed(sample_ids)).max()
    model = embedder._model.get(embedder._load_model)
    race(
        "embedding",
        lambda: embedder.embed(rows),
        lambda: loop.embed(sample_ids),
        model,
        ids,
        sample,
        options,
    )
    print(f"  vectors differ by {difference:.1e} at most")


class OneByOneEmbedder:
    """What the original does at batch size 1 (its embedder/clm_embedder.py).

    It does not keep the gradients, which the original does.
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        from transformers import AutoModelForCausalLM

        dtype = getattr(torch, options.dtype)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self.device = options.device
        self.model = model.to(options.device).eval()

    @torch.no_grad()
    def embed(self, texts: list[list[int]]) -> Any:
        vectors = []
        for ids in texts:
            batch = torch.tensor([ids], device=self.device)
            output = self.model(batch, output_hidden_states=True)
            last_token = output.hidden_states[-1][0, -1]
            vectors.append(last_token.float().cpu().numpy())
        return np.array(vectors)


def time_sentence_transformers(rows: list[Conversation], options: argparse.Namespace) -> None:
    shared = {"device": options.device, "batch_tokens": options.batch_tokens}
    windows = SentenceTransformersEmbedder(**shared)
    beginning = SentenceTransformersEmbedder(long_texts="beginning", **shared)
    model = beginning._model.get(beginning._load_model)
    windows.embed(rows[:2])
    texts = [plain_text(row) for row in rows]
    ways: dict[str, Callable[[], object]] = {
        "windows": lambda: windows.embed(rows),
        "beginning": lambda: beginning.embed(rows),
        "the library's encode": lambda: model.encode(texts, show_progress_bar=False),
    }
    seconds = dict.fromkeys(ways, np.inf)
    for _ in range(options.rounds):
        for way, embed in ways.items():
            seconds[way] = min(seconds[way], elapsed(embed, options.device))
    print(f"\nsentence_transformers, {MINILM}, float32, conversations/s:")
    for way, best in seconds.items():
        print(f"  {way}: {len(rows) / best:.1f}")


if __name__ == "__main__":
    main()
