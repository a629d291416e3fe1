"""Embedding by `causal_lm`, beside one conversation at a time through the whole model; and by `sentence_transformers`.

    python benchmarks/bench_embedding.py                                        lengths of a built-in distribution
    python benchmarks/bench_embedding.py --pool pool.jsonl --conversations 512
    python benchmarks/bench_embedding.py --device cuda --dtype bfloat16 --conversations 4096

One checkpoint (110M parameters, random), one process, the same conversations, timed in turns so that a busy machine slows both.
The loop is the original's embedder at batch size 1: the whole model, the logits of every position and all hidden states, of which it keeps
one row. It runs over `--loop` of the conversations, every n-th by length, and is held to the same vectors.
The share is of the machine's own matrix-product rate in the same run, for the multiplications that the texts need.
all-MiniLM-L6-v2 is timed beside its library's own `encode` with its default batches.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import conversations, count_cpu_seconds, elapsed, matmul_ceiling, operations, random_llama

from deita_tasks.embedding import load_embedder
from deita_tasks.embedding.sentence_transformers import SentenceTransformersEmbedder
from deita_tasks.embedding.sentence_transformers import render as plain_text
from deita_tasks.embedding.vicuna import vicuna
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.presets import MINILM
from deita_tasks.records import Conversation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", help="a pool to take conversations from")
    parser.add_argument("--conversations", type=int, default=192)
    parser.add_argument("--loop", type=int, default=48, help="conversations that the loop runs over")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--cpu-seconds", action="store_true", help="one thread, timed by the processor: for a machine that is shared")
    options = parser.parse_args()
    if options.cpu_seconds:
        count_cpu_seconds()
    rows = conversations(options.pool, options.conversations)
    with tempfile.TemporaryDirectory() as folder:
        causal_lm(random_llama(Path(folder)), rows, options)
    sentence_transformers(rows, options)


def causal_lm(folder: Path, rows: list[Conversation], options: argparse.Namespace) -> None:
    embedder = load_embedder("causal_lm", model=str(folder), dtype=options.dtype, device=options.device, batch_tokens=options.batch_tokens)
    tokenizer = load_tokenizer(find_checkpoint(str(folder)))
    ids = [encoding.ids[:2048] for encoding in tokenizer.encode_batch_fast([vicuna(row) for row in rows])]
    lengths = [len(text) for text in ids]
    step = max(1, len(rows) // options.loop)
    sample = [int(i) for i in np.argsort(lengths, kind="stable")[step // 2 :: step]]
    loop = OneByOne(folder, options)
    embedder.embed(rows[:2])  # loads
    loop.embed(ids[:2])

    ours, theirs, ceiling = np.inf, np.inf, 0.0
    for _ in range(options.rounds):
        ceiling = max(ceiling, matmul_ceiling(getattr(torch, options.dtype), options.device, 1.0))
        ours = min(ours, elapsed(lambda: embedder.embed(rows), options.device))
        theirs = min(theirs, elapsed(lambda: loop.embed([ids[i] for i in sample]), options.device))
    apart = np.abs(embedder.embed([rows[i] for i in sample]) - loop.embed([ids[i] for i in sample])).max()

    print(f"\ncausal_lm: {len(rows)} conversations, {np.mean(lengths):.0f} tokens on average, {np.median(lengths):.0f} in the median")
    print(f"  causal_lm            {len(rows) / ours:8.2f} conversations/s  {sum(lengths) / ours:9.0f} tokens/s")
    print(f"  whole model, one by one {len(sample) / theirs:5.2f} conversations/s   ({len(sample)} of them; apart by {apart:.1e} at most)")
    print(f"  ratio                {len(rows) / ours / (len(sample) / theirs):8.1f}")
    print(f"  matmul ceiling       {ceiling / 1e9:8.0f} GFLOP/s; share reached {operations(lengths) / ours / ceiling:.0%}")


class OneByOne:
    """What the original does at batch size 1 (its embedder/clm_embedder.py), without the gradients that it keeps."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        from transformers import AutoModelForCausalLM

        self.device = options.device
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, options.dtype)).to(options.device).eval()

    @torch.no_grad()
    def embed(self, texts: list[list[int]]) -> Any:
        vectors = []
        for ids in texts:
            output = self.model(torch.tensor([ids], device=self.device), output_hidden_states=True)
            vectors.append(output.hidden_states[-1][0, -1].float().cpu().numpy())
        return np.array(vectors)


def sentence_transformers(rows: list[Conversation], options: argparse.Namespace) -> None:
    embedder = SentenceTransformersEmbedder(device=options.device, batch_tokens=options.batch_tokens)
    embedder.embed(rows[:2])
    model = embedder._loaded.get(embedder._load)
    texts = [plain_text(row) for row in rows]
    ours, theirs = np.inf, np.inf
    for _ in range(options.rounds):
        ours = min(ours, elapsed(lambda: embedder.embed(rows), options.device))
        theirs = min(theirs, elapsed(lambda: model.encode(texts, show_progress_bar=False), options.device))
    print(f"\nsentence_transformers, {MINILM}, float32: {len(rows) / ours:.1f} conversations/s ({len(rows) / theirs:.1f} by its `encode`)")


if __name__ == "__main__":
    main()
