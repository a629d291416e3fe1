"""The pool's embeddings as a strategy reads them."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deita_tasks.errors import UsageError
from deita_tasks.selecting.similarity.exact import CHUNK, Floats, Indices, normalised


class Vectors:
    """The pool's embeddings as a strategy reads them: a few rows at a time, normalised, and nothing
    of them kept.

    `embeddings`: (n, d), float32 or float16 (another number type is rounded to float32 first); may
    be a memory map, whose pages are let go after reading, so that a file larger than the memory can
    be read through. Raises UsageError where they are not that.
    """

    def __init__(self, embeddings: Any, rows: int) -> None:
        if embeddings is None:
            raise UsageError(
                "embeddings are missing: this strategy compares rows; expected one "
                "vector for each id"
            )
        array = np.asanyarray(embeddings)
        if array.ndim != 2 or len(array) != rows:
            raise UsageError(
                f"embeddings of shape {array.shape} for {rows} ids: expected ({rows}, d), one "
                "vector for each id"
            )
        if array.dtype.kind not in "fiu":
            raise UsageError(f"embeddings of {array.dtype}: expected float32 or float16")
        self._array = array
        self._map = _file_map(array)
        self.dimensions = int(array.shape[1])

    def read(self, positions: Indices, normalise: bool = True) -> tuple[Floats, NDArray[np.bool_]]:
        """The rows at `positions` (b,), normalised or not, float32 (b, d), and which can be
        compared (b,).

        A few at a time, so that their float64 copies stay in the cache, and as one row may bring a
        megabyte of its file into the map.
        """
        rows, fit = (
            np.empty((len(positions), self.dimensions), np.float32),
            np.empty(len(positions), bool),
        )
        step = max(1, CHUNK // max(1, self.dimensions))
        for start in range(0, len(positions), step):
            piece = slice(start, start + step)
            read = _narrow(np.asarray(self._array[positions[piece]]))
            unit, fit[piece] = normalised(read)
            rows[piece] = unit if normalise else read
            if self._map is not None:
                self._map.madvise(mmap.MADV_DONTNEED)
        return rows, fit


def _narrow(rows: NDArray[Any]) -> NDArray[Any]:
    if rows.dtype in (np.float16, np.float32):
        return rows
    with np.errstate(
        over="ignore"
    ):  # a component beyond float32 becomes infinite, and its row cannot be compared
        return rows.astype(np.float32)


def _file_map(array: NDArray[Any]) -> mmap.mmap | None:
    """The memory map behind `array`, where dropping its pages is free of loss: a shared one, not
    copy-on-write.
    """
    if not isinstance(array, np.memmap) or array.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None
