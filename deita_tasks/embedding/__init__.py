"""Embedding: one vector per conversation. One file per backend.

base.py                   the base class
sentence_transformers.py  any sentence-transformers model
windows.py                texts over a model's window, cut and averaged
causal_lm.py              the paper's embedder, a decoder's last hidden state
vicuna.py                 conversations as text, for causal_lm
provided.py               vectors that the user provides
"""

from typing import Any

from deita_tasks.catalogue import EMBEDDERS
from deita_tasks.components import load_component
from deita_tasks.embedding.base import Embedder

__all__ = ["EMBEDDERS", "Embedder", "load_embedder"]


def load_embedder(name: str, **options: Any) -> Embedder:
    """Return the embedder `name` of EMBEDDERS; loads no model yet.

    Raises UsageError for a wrong name or option.
    """
    embedder: Embedder = load_component(EMBEDDERS, "embedder", name, options)
    return embedder
