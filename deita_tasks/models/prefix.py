"""The beginning that texts share, computed once.

Its keys and values stand before each text's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache


class SharedPrefix(NamedTuple):
    """The tokens `ids`, and for each layer their keys and values: (p, heads, size of a head)."""

    ids: tuple[int, ...]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]

    def fits(self, text: Sequence[int]) -> bool:
        """Return whether the token ids `text` begin with this prefix and go on after it."""
        length = len(self.ids)
        return length < len(text) and tuple(text[:length]) == self.ids


def compute_prefix(base: Any, ids: Sequence[int], device: str) -> SharedPrefix | None:
    """Return the tokens `ids` under the model `base`.

    None for a model that does not keep keys and values for each of its layers.
    """
    cache = DynamicCache()  # without windows: it keeps every key
    base(input_ids=torch.tensor([list(ids)], device=device), past_key_values=cache, use_cache=True)
    layers = cache.layers
    if len(layers) != base.config.num_hidden_layers:
        return None
    keys = [layer.keys[0].transpose(0, 1) for layer in layers]
    values = [layer.values[0].transpose(0, 1) for layer in layers]
    return SharedPrefix(tuple(ids), keys, values)
