"""Work on the next piece while the last is used: tokenizers let go of the interpreter, so their
threads run beside the model.
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
    """`prepare` of each `size` items in turn, one piece ahead of the caller; of no items, once."""
    with ThreadPoolExecutor(1, "deita-ahead") as worker:
        pieces = [items[start : start + size] for start in range(0, max(1, len(items)), size)]
        coming = worker.submit(prepare, pieces[0])
        for piece in pieces[1:]:
            ready, coming = coming.result(), worker.submit(prepare, piece)
            yield ready
        yield coming.result()
