"""The beginning that texts share, computed once.

Its keys and values stand in for it in every batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

# A text longer than this many prefixes is computed whole: the mask that a batch with a cache needs
# then costs more than the prefix (110M LLaMA, prefix of 21 tokens, CPU: 6% less time at 400 tokens,
# 3% more at 1,000).
MAX_LENGTH_RATIO = 20


class SharedPrefix(DynamicCache):
    """The cache of the tokens `ids`, for batches of any size.

    It never grows: what a batch adds is handed on and forgotten.
    """

    def __init__(self, ids: Sequence[int], layers: list[DynamicLayer]) -> None:
        super().__init__()
        self.ids = tuple(ids)
        self.layers = layers

    def fits(self, text: Sequence[int]) -> bool:
        """Return whether to compute the token ids `text` from this prefix.

        The text must begin with it, go on after it, and be short enough to profit. Its own tokens
        decide, not those of its batch.
        """
        length = len(self.ids)
        if not length < len(text) <= MAX_LENGTH_RATIO * length:
            return False
        return tuple(text[:length]) == self.ids

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return keys and values of the prefix, once per row, followed by the batch's own.

        transformers calls this for each layer.
        """
        rows = len(key_states)
        layer = copy.copy(self.layers[layer_idx])
        layer.keys = layer.keys.expand(rows, -1, -1, -1)
        layer.values = layer.values.expand(rows, -1, -1, -1)
        return layer.update(key_states, value_states, *args, **kwargs)


def compute_prefix(base: Any, ids: Sequence[int], device: str) -> SharedPrefix | None:
    """Return the tokens `ids` under the model `base`.

    None for a model that does not keep plain keys and values, such as a recurrent one.
    """
    cache = DynamicCache(config=base.config)
    if _has_plain_layers(cache):
        base(
            input_ids=torch.tensor([list(ids)], device=device),
            past_key_values=cache,
            use_cache=True,
        )
    layers = cache.layers  # some models add them as they go
    if not layers or not _has_plain_layers(cache):
        return None
    if not all(layer.is_initialized for layer in layers):
        return None
    return SharedPrefix(ids, layers)


def _has_plain_layers(cache: DynamicCache) -> bool:
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    return all(type(layer) in plain for layer in cache.layers)
