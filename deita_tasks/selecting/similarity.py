"""The similarity of two rows, defined so that no block size, thread count, device or BLAS can change it.

A row is normalised once: its norm in float64 by a summation of fixed order (`normalised`), each component divided by it in float64
and rounded to float32. The similarity of two such rows a and b is the sum of the products a[i] * b[i], which are exact in float64,
rounded correctly to float64 (`math.fsum`) and then to float32. That is one number for one pair, whoever computes it.

It costs far more than a matrix product, so it is computed only where a matrix product cannot tell. Of a float32 product m it is known that
|m - a.b| <= gamma(d) * sum |a[i] * b[i]|, gamma(d) = d u / (1 - d u), u = 2**-24, for EVERY order of summation, with or without fused
multiply-add (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), and that sum is at most |a| |b| <= (1 + u)**2.
"""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deita_tasks.errors import UsageError

ROUNDING = 2.0**-22  # over the error of rounding a similarity (below 2) to float32, on either side of a comparison
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]  # row of one matrix, row of the other

CHUNK = 2**21  # float64 components held at once by `similarities`: 16 MB for each side


def screening_error(dimensions: int) -> float:
    """How far a float32 matrix product of normalised rows can be from their exact dot product, at most.

    The last term is for products that underflow, where the hardware may flush them to zero.
    """
    gamma = dimensions * 2.0**-24 / (1 - dimensions * 2.0**-24)
    return gamma * (1 + 2.0**-22) + dimensions * 2.0**-125


def normalised(rows: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """`rows` (b, d) of any float, L2-normalised, float32 (b, d), and which of them (b,) can be: not those with NaN, infinity or only zeros.

    The squares are added by halves, x[i] + x[i + w/2], until one is left: elementwise operations alone, and the same everywhere.
    """
    wide = rows.astype(np.float64)
    sums = wide * wide
    width = sums.shape[1]
    while width > 1:
        half = (width + 1) // 2
        sums[:, : width - half] += sums[:, half:width]
        width = half
    norms = np.sqrt(sums[:, 0]) if width else np.zeros(len(sums))
    fit = np.isfinite(norms) & (norms > 0)
    wide /= np.where(fit, norms, 1.0)[:, None]
    return wide.astype(np.float32), fit


def similarities(left: NDArray[np.float32], right: NDArray[np.float32], pairs: Pairs) -> NDArray[np.float32]:
    """The similarity of left[i] and right[j] for each of the p `pairs` (i, j) of normalised rows, float32 (p,), as this module defines it.

    A float64 dot product is so near the exact one that nearly always both ends of its error bound round to the same float32: first
    with |a| |b| <= 1 in the bound, then with sum |a[i] * b[i]|, which helps near 0. The few others are added exactly.
    """
    rows, indices = pairs
    result = np.empty(len(rows), np.float32)
    step = max(1, CHUNK // max(1, left.shape[1]))
    for start in range(0, len(rows), step):
        a, b = left[rows[start : start + step]].astype(np.float64), right[indices[start : start + step]].astype(np.float64)
        settled, unsettled = _settled(np.einsum("ij,ij->i", a, b), 1.0, left.shape[1])
        if unsettled.size:
            a, b = a[unsettled], b[unsettled]
            settled[unsettled], still = _settled(np.einsum("ij,ij->i", a, b), np.einsum("ij,ij->i", np.abs(a), np.abs(b)), left.shape[1])
            for k in still:
                settled[unsettled[k]] = math.fsum(a[k] * b[k])
        result[start : start + step] = settled
    return result + np.float32(0)  # no negative zeros


def _settled(
    dots: NDArray[np.float64], magnitudes: NDArray[np.float64] | float, terms: int
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """`dots` rounded to float32, and the indices of those where the error of a sum of so many terms could make it another float32."""
    error = (terms + 4) * 2.0**-52 * magnitudes
    low, high = (dots - error).astype(np.float32), (dots + error).astype(np.float32)
    return low, np.flatnonzero(low != high)


class Vectors:
    """The pool's embeddings as a strategy reads them: a few rows at a time, normalised, and nothing of them kept.

    `embeddings`: (n, d), float32 or float16 (another number type is rounded to float32 first); may be a memory map, whose pages are let go
    after each read, so that a file larger than the memory can be read through. Raises UsageError where they are not that.
    """

    def __init__(self, embeddings: Any, rows: int) -> None:
        if embeddings is None:
            raise UsageError("embeddings are missing: this strategy compares rows; expected one vector for each id")
        array = np.asanyarray(embeddings)
        if array.ndim != 2 or len(array) != rows:
            raise UsageError(f"embeddings of shape {array.shape} for {rows} ids: expected ({rows}, d), one vector for each id")
        if array.dtype.kind not in "fiu":
            raise UsageError(f"embeddings of {array.dtype}: expected float32 or float16")
        self._array = array
        self._map = _file_map(array)
        self.dimensions = int(array.shape[1])

    def read(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The rows at `positions` (b,), normalised, float32 (b, d), and which can be compared (b,)."""
        rows = np.asarray(self._array[positions])
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
        return normalised(rows if rows.dtype in (np.float16, np.float32) else _rounded(rows))


def _rounded(rows: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a component beyond float32 becomes infinite, and its row cannot be compared
        return rows.astype(np.float32)


def _file_map(array: NDArray[Any]) -> mmap.mmap | None:
    """The memory map behind `array`, where dropping its pages is free of loss: a shared one, not copy-on-write."""
    if not isinstance(array, np.memmap) or array.mode not in ("r", "r+") or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None
