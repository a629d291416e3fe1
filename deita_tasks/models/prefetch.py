"""Prepare the next texts while the caller works on the last ones.

Tokenizers release the interpreter lock, so their threads run beside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

PIECE = 1024  # texts: enough to sort by length and to fill a batch of a GPU


def prefetch(
    items: Sequence[T], prepare: Callable[[Sequence[T]], list[R]], size: int = PIECE
) -> Iterator[list[R]]:
    """Yield `prepare` of `size` items at a time, one piece ahead of the caller.

    Without items it yields `prepare` of none, once.
    """
    with ThreadPoolExecutor(1, "deita-prefetch") as worker:
        starts = range(0, max(1, len(items)), size)
        pieces = [items[start : start + size] for start in starts]
        future = worker.submit(prepare, pieces[0])
        for piece in pieces[1:]:
            prepared = future.result()
            future = worker.submit(prepare, piece)
            yield prepared
        yield future.result()
