"""Rows that a training window leaves without an answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def are_beyond(before_answer: NDArray[np.int64], window: int | None) -> NDArray[np.bool_]:
    """Return which rows have no word of the assistant within the window: bool (n,).

    before_answer: int64 (n,), the tokens before the first word of the assistant. window: in tokens;
    None for no limit. A trainer cuts a row there, and learns nothing from what is left of these.
    """
    if window is None:
        return np.zeros(len(before_answer), np.bool_)
    return np.asarray(before_answer >= window)


def describe_beyond(tokens: int, before_answer: int, window: int | None) -> str:
    """Return why a row is too long, in words."""
    return (
        f"its first answer begins after {before_answer:,} of {tokens:,} tokens, beyond the "
        f"training window of {window:,}"
    )
