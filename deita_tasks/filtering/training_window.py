"""Rows that do not fit a training window: left without an answer, or cut at a turn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deita_tasks.conversations import Conversation, media_of


def are_beyond(before_answer: NDArray[np.int64], window: int | None) -> NDArray[np.bool_]:
    """Return which rows have no word of the assistant within the window: bool (n,).

    before_answer: int64 (n,), the tokens before the first word of the assistant. window: in tokens;
    None for no limit. A trainer cuts a row there, and learns nothing from what is left of these.
    """
    if window is None:
        return np.zeros(len(before_answer), np.bool_)
    return np.asarray(before_answer >= window)


def describe_beyond(tokens: int, before_answer: int, window: int | None) -> str:
    """Return why a row is too long, in words.

    tokens: of the whole row. before_answer: of what precedes its first answer.
    """
    return (
        f"its first answer begins after {before_answer:,} of {tokens:,} tokens, beyond the "
        f"training window of {window:,}"
    )


def describe_uncut(tokens: int, window: int) -> str:
    """Return why a row is too long that was to be cut at a turn, in words."""
    return (
        f"it has {tokens:,} tokens, and no beginning of whole turns with an answer at its end fits "
        f"the training window of {window:,}"
    )


def cut_at_turn(
    conversation: Conversation, fits: Callable[[Conversation], bool]
) -> Conversation | None:
    """Return the longest beginning of whole turns that ends with an answer and fits.

    None if there is none. Templates may show earlier turns in another way once later ones follow,
    so each beginning is asked about by itself, from the longest down. A row with images in a column
    of its own is not cut: its turns do not say which of them they show.
    """
    if media_of(conversation.extra):
        return None
    for turns in range(len(conversation.turns) - 1, 0, -1):
        beginning = conversation.beginning(turns)
        if beginning.is_complete and beginning.pairs and fits(beginning):
            return beginning
    return None
