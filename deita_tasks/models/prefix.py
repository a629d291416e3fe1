"""The beginning that texts have in common, gone through once: its keys and values stand in for it
in every batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

# Over this many times the beginning's length a text is gone through whole: the mask that a batch
# with a cache needs then costs more than the beginning (110M LLaMA, beginning of 21 tokens, CPU: at
# 400 tokens 6% less time, at 1,000 3% more).
MOST_TIMES = 20


class SharedPrefix(DynamicCache):
    """A cache of the tokens `ids`, for batches of any size, that never grows: what a batch adds is
    handed on and forgotten.
    """

    def __init__(self, ids: Sequence[int], layers: list[DynamicLayer]) -> None:
        super().__init__()
        self.ids = tuple(ids)
        self.layers = layers

    def fits(self, text: Sequence[int]) -> bool:
        """Whether `text` begins so, goes on, and is short enough for it to matter. Its own tokens
        decide, not those of its batch.
        """
        return (
            len(self.ids) < len(text) <= MOST_TIMES * len(self.ids)
            and tuple(text[: len(self.ids)]) == self.ids
        )

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Keys and values of the beginning, as often as there are rows, and after them the batch's
        own.
        """
        layer = copy.copy(self.layers[layer_idx])
        layer.keys = layer.keys.expand(len(key_states), -1, -1, -1)
        layer.values = layer.values.expand(len(key_states), -1, -1, -1)
        return layer.update(key_states, value_states, *args, **kwargs)


def shared_prefix(base: Any, ids: Sequence[int], device: str) -> SharedPrefix | None:
    """The beginning `ids` under the model `base`; None for a model that does not keep plain keys
    and values (a recurrent one).
    """
    cache = DynamicCache(config=base.config)
    if _plain(cache.layers):
        base(
            input_ids=torch.tensor([list(ids)], device=device),
            past_key_values=cache,
            use_cache=True,
        )
    filled = (
        cache.layers
        and _plain(cache.layers)
        and all(layer.is_initialized for layer in cache.layers)
    )
    return SharedPrefix(ids, cache.layers) if filled else None


def _plain(layers: Sequence[Any]) -> bool:
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
