"""Texts longer than a model's window, cut into consecutive windows.

A window ends where the tokenizer begins a word, so that it makes the same tokens of the windows as
of the whole text. In a word longer than half a window it ends between two tokens, and never within
a character.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deita_tasks.errors import UsageError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


class Window(NamedTuple):
    """A piece of a text that a model embeds at once.

    tokens: what its tokenizer makes of the piece, with the prompt and special tokens. weight: the
    tokens of the piece itself.
    """

    text: str
    tokens: int
    weight: int


def cut_text(tokenizer: Tokenizer, text: str, prompt: str, size: int) -> list[Window]:
    """Return the windows of `text`, at most `size` tokens each; together they are the text.

    `prompt` goes before each window, and its tokens count. A window over `size` is one character.
    Raises UsageError if the prompt leaves no room.
    """
    encoding = tokenizer.encode(prompt + text)
    tokens = _own_tokens(encoding, len(prompt))
    pieces = [text]
    if len(encoding.ids) > size:
        room = size - len(encoding.ids) + len(tokens.ends)
        if room < 1:
            raise UsageError(
                f"prompt = {prompt!r} leaves no room for text in a window of {size:,} tokens; "
                "expected a shorter prompt or a longer max_length"
            )
        pieces = _split(tokens, text, room)
        # By itself a piece may have more tokens: some tokenizers put a space before each.
        prompted = [prompt + piece for piece in pieces]
        alone = tokenizer.encode_batch_fast(prompted)
        longest = max(len(encoding.ids) for encoding in alone)
        excess = longest - size
        if 0 < excess <= room // 4:
            pieces = _split(tokens, text, room - excess)
    if len(pieces) == 1:
        window = Window(text, len(encoding.ids), len(tokens.ends))
        return [window]
    windows = []
    for piece in pieces:
        windows += cut_text(tokenizer, piece, prompt, size)
    return windows


def average_windows(
    vectors: NDArray[np.float32], windows: Sequence[Sequence[Window]], normalize: bool
) -> NDArray[np.float32]:
    """Return the mean of each text's windows, weighted by their tokens: float32 (n, d).

    `vectors`: float32 (w, d), those of all windows in order. A text's only window is its vector.
    normalize: whether to give means unit length, as the model does with its vectors.
    """
    width = vectors.shape[1]
    means = np.empty((len(windows), width), np.float32)
    start = 0
    for row, parts in enumerate(windows):
        end = start + len(parts)
        means[row] = vectors[start]
        if len(parts) > 1:
            weights = [part.weight for part in parts]
            doubles = vectors[start:end].astype(np.float64)
            mean = np.average(doubles, axis=0, weights=weights)
            if normalize:
                mean = mean / np.linalg.norm(mean)
            means[row] = mean
        start = end
    return means


class _Tokens(NamedTuple):
    """A text's own tokens: where each starts and ends, and the number of its word; int64 (t,)."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    words: NDArray[np.int64]


def _own_tokens(encoding: Encoding, prompt_length: int) -> _Tokens:
    """Return the tokens that are neither special nor of the prompt.

    Their places count from the text's beginning. A token that spans prompt and text is the text's.
    """
    offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    offsets -= prompt_length
    word_ids = [-1 if word is None else word for word in encoding.word_ids]
    words = np.array(word_ids, np.int64)
    is_special = np.array(encoding.special_tokens_mask) != 0
    own = ~is_special & (offsets[:, 1] > 0)
    starts, ends = offsets[own].T
    return _Tokens(starts, ends, words[own])


def _split(tokens: _Tokens, text: str, room: int) -> list[str]:
    """Return `text` in pieces of at most `room` of its tokens, or of one character."""
    starts, ends, words = tokens
    is_apart = starts[1:] >= ends[:-1]
    is_longer = ends[1:] > ends[:-1]
    is_between = is_apart & is_longer  # two characters
    is_word = words[1:] != words[:-1]
    before_space = [text[end : end + 1].isspace() for end in ends[:-1].tolist()]
    is_word |= np.array(before_space, bool)
    word_starts = np.flatnonzero(is_between & is_word) + 1
    token_starts = np.flatnonzero(is_between) + 1
    cuts = [0]
    first = 0
    while len(ends) - first > room:
        start = _next_start(word_starts, token_starts, first, room)
        if start is None:
            break
        cuts.append(int(ends[start - 1]))
        first = start
    cuts.append(len(text))
    return [text[start:end] for start, end in pairwise(cuts)]


def _next_start(
    word_starts: NDArray[np.int64], token_starts: NDArray[np.int64], first: int, room: int
) -> int | None:
    """Return the token that begins the window after the one of token `first`.

    The last word that leaves this window half full, else the last token, else the next at all.
    """
    for starts, low in ((word_starts, first + room // 2), (token_starts, first)):
        index = int(np.searchsorted(starts, first + room, side="right"))
        if index and starts[index - 1] > low:
            return int(starts[index - 1])
    return int(token_starts[index]) if index < len(token_starts) else None
