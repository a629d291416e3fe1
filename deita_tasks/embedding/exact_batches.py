"""Batches of a sentence-transformers model in which no text's vector depends on the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deita_tasks.models.batches import WIDTH_STEP, filled_rows, padded_width
from deita_tasks.models.hardware import default_batch_tokens

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


def can_pad_to_width(model: SentenceTransformer) -> bool:
    """Return whether the model reads tokens, and a window of them is a multiple of WIDTH_STEP.

    A tokenizer that truncates to another window refuses to pad.
    """
    from sentence_transformers.base.modules import Transformer

    if not isinstance(model[0], Transformer):
        return False
    window = model.max_seq_length
    return window is not None and window % WIDTH_STEP == 0


def has_own_widths(features: Mapping[str, Any]) -> bool:
    """Return whether each text of a batch is padded to its own width."""
    mask = features["attention_mask"]
    width = mask.shape[1]
    lengths = mask.sum(1).tolist()
    return all(padded_width(length) == width for length in lengths)


def embed_exactly(
    model: SentenceTransformer, features: dict[str, Any], rows: int, fills: bool
) -> torch.Tensor:
    """Return the vectors of a batch, (rows, d), each as if it were alone.

    The first module reads all rows at once; `fills`: with copies of the last one after them, up to
    the number that all batches of this width have. The modules that pool its states read row by
    row: the rounding of their products would depend on the number of rows.
    """
    import torch

    first, *others = model
    count = rows
    if fills:
        width = features["attention_mask"].shape[1]
        count = filled_rows(width, default_batch_tokens("cpu"))
        features = _fill(features, rows, count)
    features = first(features)
    vectors = []
    for row in range(rows):
        own = dict(features)
        for name, value in features.items():
            if _has_rows(value, count):
                own[name] = value[row : row + 1]
        for module in others:
            own = module(own)
        vectors.append(own["sentence_embedding"])
    return torch.cat(vectors)


def _fill(features: dict[str, Any], rows: int, count: int) -> dict[str, Any]:
    """Return the features of `rows` texts with copies of the last one after them, `count` rows."""
    places = [min(row, rows - 1) for row in range(count)]
    return {
        name: value[places] if _has_rows(value, rows) else value for name, value in features.items()
    }


def _has_rows(value: object, rows: int) -> bool:
    """Return whether a feature is a tensor with `rows` rows, so that each text has its own.

    Any other feature concerns the whole batch, and is handed on as it is.
    """
    import torch

    return isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) == rows
