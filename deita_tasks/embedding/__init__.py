"""Embedding: one vector a conversation; one file a backend."""

from typing import Any

from deita_tasks.components import Table, load_component
from deita_tasks.embedding.base import Embedder

EMBEDDERS: Table = {
    "causal_lm": "deita_tasks.embedding.causal_lm:CausalLMEmbedder",
    "provided": "deita_tasks.embedding.provided:ProvidedEmbedder",
    "sentence_transformers": "deita_tasks.embedding.sentence_transformers:SentenceTransformersEmbedder",
}


def load_embedder(name: str, **options: Any) -> Embedder:
    """The embedder `name` of EMBEDDERS. Raises UsageError for a wrong name or option; loads no
    model yet.
    """
    embedder: Embedder = load_component(EMBEDDERS, "embedder", name, options)
    return embedder
