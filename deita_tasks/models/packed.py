"""Texts of a batch in one row, one after the other, each with an attention of its own.

There is no padding between them and no mask. The attention is registered with transformers under
the name ATTENTION, so that the code of a model family is used as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from deita_tasks.models.prefix import SharedPrefix

ATTENTION = "deita_packed"

# As torch.nn.attention.varlen.varlen_attn: (query, key, value, cu_seq_q, cu_seq_k, max_q, max_k),
# scale, window_size and enable_gqa by keyword. Where there are more keys than queries, the last
# query sees the last key.
VarlenAttention: TypeAlias = Callable[..., Any]

# What transformers hands to an attention function and what does not change its result.
_HARMLESS = {"dropout", "is_causal", "position_ids", "cache_position", "use_cache"}


@dataclass(frozen=True)
class PackedBatch:
    """s texts, one after the other in one row of t tokens; the last one is filler if need be.

    `input_ids`, `position_ids`: int64 (1, t). `query_starts`, `key_starts`: int32 (s + 1,), where
    each text's queries and keys begin, and the end. `key_index`: int64, the rows of prefix and own
    keys, one after the other, that make up the keys of each text; None if no text has the prefix.
    `last`: int64 (n,), where the last token of each text is. `windows`: for each layer the tokens
    that its attention reaches back, or None.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    query_starts: torch.Tensor
    key_starts: torch.Tensor
    key_index: torch.Tensor | None
    last: torch.Tensor
    longest_query: int
    longest_key: int
    prefix: SharedPrefix | None
    windows: Sequence[int | None]
    attention: VarlenAttention

    def add_prefix(self, shared: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Return the keys or values of each text, the prefix's first where it has it.

        `shared`: (p, heads, size of a head), the prefix's. `own`: (t, heads, size of a head).
        """
        if self.key_index is None:
            return own
        both = torch.cat([shared, own])
        return both[self.key_index]


class PackedLayout:
    """How one model reads packed batches: its windows, its attention kernel and its device."""

    def __init__(self, windows: Sequence[int | None], dtype: torch.dtype, device: str) -> None:
        self.windows = windows
        self.device = device
        self.attention = choose_attention(device, dtype)

    def pack(
        self, texts: Sequence[Sequence[int]], tokens: int, prefix: SharedPrefix | None
    ) -> PackedBatch:
        """Return a batch of `tokens` tokens of the given token ids.

        Texts that begin with `prefix` go on after it. Filler is a text of its own that no other
        sees; all its tokens are at position 0, as some models have few positions.
        """
        shared = 0 if prefix is None else len(prefix.ids)
        skips = [shared if prefix is not None and prefix.fits(ids) else 0 for ids in texts]
        lengths = [len(ids) - skip for ids, skip in zip(texts, skips, strict=True)]
        filler = tokens - sum(lengths)
        input_ids = np.zeros((1, tokens), np.int64)
        own = chain.from_iterable(ids[skip:] for ids, skip in zip(texts, skips, strict=True))
        input_ids[0, : tokens - filler] = np.fromiter(own, np.int64)
        if filler:
            lengths.append(filler)
            skips.append(0)
        queries = _starts(lengths)
        first_positions = queries[:-1] - skips
        positions = np.arange(tokens) - np.repeat(first_positions, lengths)
        positions[tokens - filler :] = 0
        key_lengths = np.add(lengths, skips)
        return PackedBatch(
            input_ids=self._to_device(input_ids),
            position_ids=self._to_device(positions[None]),
            query_starts=self._to_device(queries.astype(np.int32)),
            key_starts=self._to_device(_starts(key_lengths).astype(np.int32)),
            key_index=self._to_device(_key_index(skips, lengths, shared)) if any(skips) else None,
            last=self._to_device(queries[1 : len(texts) + 1] - 1),
            longest_query=max(lengths),
            longest_key=int(key_lengths.max()),
            prefix=prefix,
            windows=self.windows,
            attention=self.attention,
        )

    def _to_device(self, array: NDArray[Any]) -> torch.Tensor:
        """Return an array as a tensor.

        To CUDA it goes from pinned memory, and nothing waits for it.
        """
        tensor = torch.from_numpy(array)
        if not self.device.startswith("cuda"):
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)


def layer_windows(config: Any) -> list[int | None] | None:
    """Return how many tokens each layer's attention reaches back, None for all.

    None for a model with other layers than those of an attention, such as a recurrent one.
    """
    layers = DynamicCache(config=config).layers
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    if not layers or any(type(layer) not in plain for layer in layers):
        return None
    return [getattr(layer, "sliding_window", None) for layer in layers]


def choose_attention(device: str, dtype: torch.dtype) -> VarlenAttention:
    """Return torch's kernel for texts of different lengths, or one text after the other.

    The kernel is for 16-bit numbers on GPUs from Ampere on, in torch 2.10 and later. It must not
    split the keys of a text: how it would depends on the longest text of the batch.
    """
    if device.startswith("cuda") and dtype in (torch.bfloat16, torch.float16):
        try:
            from torch.nn.attention.varlen import varlen_attn
        except ImportError:
            return attention_by_text
        if torch.cuda.get_device_capability(device) >= (8, 0):
            if "num_splits" in inspect.signature(varlen_attn).parameters:
                return partial(varlen_attn, num_splits=1)
            return varlen_attn
    return attention_by_text


def attention_by_text(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, 0),
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Return causal attention, one text after the other: (t, heads, size of a head).

    Each text is copied, so that neither its neighbours nor its place in memory matter.
    """
    query_lengths = cu_seq_q.diff().tolist()
    key_lengths = cu_seq_k.diff().tolist()
    texts = zip(
        torch.split(query, query_lengths),
        torch.split(key, key_lengths),
        torch.split(value, key_lengths),
        strict=True,
    )
    outputs = []
    for queries, keys, values in texts:
        length = len(keys)
        skip = length - len(queries)
        # queries before the first one make the causal mask a square, which needs no memory
        square = pad(queries, (0, 0, 0, 0, skip, 0))
        mask = _window_mask(length, window_size[0], query.device)
        output = scaled_dot_product_attention(
            _heads_first(square),
            _heads_first(keys),
            _heads_first(values),
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=enable_gqa,
        )
        own = output[0, :, skip:]
        outputs.append(own.transpose(0, 1))
    return torch.cat(outputs)


def _heads_first(rows: torch.Tensor) -> torch.Tensor:
    """Return (1, heads, length, size of a head) of (length, heads, size of a head), as a copy."""
    return rows.transpose(0, 1)[None].contiguous()


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed: PackedBatch | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return a layer's attention over a packed batch; called by transformers.

    `query`: (1, heads, t, size of a head). Raises ValueError for more than a causal window.
    """
    if packed is None:
        raise ValueError("it does not hand options on to its attention")
    layer: Any = module.layer_idx
    window = packed.windows[layer]
    _check_options({**options, "attention_mask": attention_mask})
    if sliding_window != window:
        raise ValueError(f"its attention has a window of {window} that it does not hand on")
    keys = key[0].transpose(0, 1)
    values = value[0].transpose(0, 1)
    if packed.prefix is not None:
        keys = packed.add_prefix(packed.prefix.keys[layer], keys)
        values = packed.add_prefix(packed.prefix.values[layer], values)
    reach = -1 if window is None else window - 1
    output = packed.attention(
        query[0].transpose(0, 1),
        keys,
        values,
        packed.query_starts,
        packed.key_starts,
        # these choose the kernel: another one for single queries, or a window out of reach
        max(packed.longest_query, 2),
        max(packed.longest_key, reach + 2),
        scale=scaling,
        window_size=(reach, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output[None], None


def _check_options(options: dict[str, Any]) -> None:
    """Raise ValueError for an option that changes an attention's result, such as a mask or sinks.

    The caller then computes padded texts instead.
    """
    given = [name for name, option in options.items() if option is not None]
    unknown = sorted(set(given) - _HARMLESS)
    if unknown:
        raise ValueError(f"its attention has {', '.join(unknown)}")


def _starts(lengths: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
    """Return where each of s texts starts in a row, and where the last one ends: int64 (s + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)])


def _key_index(skips: Sequence[int], lengths: Sequence[int], shared: int) -> NDArray[np.int64]:
    """Return for each text the positions of the prefix, if it has it, and those of its own keys.

    int64, in a row of `shared` prefix keys and then all own ones. `skips`: `shared` for a text that
    has the prefix, else 0. `lengths`: of the texts without it.
    """
    starts = shared + _starts(lengths)
    pieces: list[NDArray[np.int64]] = []
    for skip, start, end in zip(skips, starts[:-1], starts[1:], strict=True):
        pieces += [np.arange(skip), np.arange(start, end)]
    return np.concatenate(pieces)


def _window_mask(length: int, reach: int, device: torch.device) -> torch.Tensor | None:
    """Return which keys each query sees, bool (length, length); None if it sees all before it."""
    if not 0 <= reach < length - 1:
        return None
    every = torch.ones(length, length, dtype=torch.bool, device=device)
    causal = every.tril()
    return causal.triu(-reach)


AttentionInterface.register(ATTENTION, packed_attention)
