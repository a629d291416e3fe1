"""Reads the pool's embeddings for a strategy."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from deita_tasks.errors import UsageError
from deita_tasks.selecting.arrays import Array, Floats, Indices, Mask
from deita_tasks.selecting.similarity.exact import normalise_rows, rows_per_chunk


class EmbeddingReader:
    """Reads rows of the pool's embeddings, normalised if wanted, and holds none of them.

    `embeddings`: (n, d), float32 or float16; any other number type is rounded to float32 first. It
    may be a memory map: its pages are released after reading, so a file larger than the memory can
    be read through. Raises UsageError if the embeddings are anything else.
    """

    def __init__(self, embeddings: Any, rows: int) -> None:
        if embeddings is None:
            raise UsageError(
                "embeddings are missing: this strategy compares rows; expected one vector per id"
            )
        array = np.asanyarray(embeddings)
        if array.ndim != 2 or len(array) != rows:
            raise UsageError(
                f"embeddings of shape {array.shape} for {rows} ids: expected ({rows}, d), one "
                "vector per id"
            )
        if array.dtype.kind not in "fiu":
            raise UsageError(f"embeddings of {array.dtype}: expected float32 or float16")
        self._array = array
        self._map = _find_shared_map(array)
        self.dimensions = int(array.shape[1])

    def read(self, positions: Indices, normalise: bool = True) -> tuple[Floats, Mask]:
        """Return the rows at `positions` (b,), float32 (b, d), and which are comparable, (b,).

        Rows are read a few at a time: their float64 copies then stay in the cache, and one row may
        bring a megabyte of its file into the map.
        """
        rows = np.empty((len(positions), self.dimensions), np.float32)
        comparable = np.empty(len(positions), bool)
        step = rows_per_chunk(self.dimensions)
        for start in range(0, len(positions), step):
            piece = slice(start, start + step)
            raw = _narrow(np.asarray(self._array[positions[piece]]))
            normalised, comparable[piece] = normalise_rows(raw)
            rows[piece] = normalised if normalise else raw
            if self._map is not None:
                self._map.madvise(mmap.MADV_DONTNEED)
        return rows, comparable


def _narrow(rows: Array) -> Array:
    """Return `rows` as float16 or float32.

    A component beyond float32 becomes infinite, and its row is not comparable.
    """
    if rows.dtype in (np.float16, np.float32):
        return rows
    with np.errstate(over="ignore"):
        return rows.astype(np.float32)


def _find_shared_map(array: Array) -> mmap.mmap | None:
    """Return the memory map behind `array`, or None if releasing its pages could lose data.

    Pages of a shared map can be released, those of a copy-on-write map cannot.
    """
    if not isinstance(array, np.memmap) or array.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None
