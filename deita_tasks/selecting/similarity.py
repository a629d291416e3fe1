"""The similarity of two rows, defined so that no block size, thread count, device or BLAS can change it.

A row is normalised once: its norm in float64 by a summation of fixed order (`normalised`), each component divided by it in float64
and rounded to float32. The similarity of two such rows a and b is the sum of the products a[i] * b[i], which are exact in float64,
rounded correctly to float64 (`math.fsum`) and then to float32. That is one number for one pair, whoever computes it.

It costs far more than a matrix product, so it is computed only where a matrix product cannot tell. Of a float32 product m of n terms it is
known that |m - a.b| <= gamma(n) * sum |a[i] * b[i]|, gamma(n) = n u / (1 - n u), u = 2**-24, for EVERY order of summation, with or without
fused multiply-add (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), and that sum is at most |a| |b|.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Pairs = tuple[Indices, Indices]  # row of one matrix, row of the other

ROUNDING = 2.0**-22  # over the error of rounding a similarity (below 2) to float32, on either side of a comparison
CHUNK = 2**16  # components of which float64 copies are made at a time: 512 KB, as they are four times slower out of the cache


def screening_error(terms: int) -> float:
    """How far a float32 product of two rows of at most `terms` components and norms of at most 1 + 2**-12 can be from the exact one.

    The last term is for products that underflow, where the hardware may flush them to zero.
    """
    gamma = terms * 2.0**-24 / (1 - terms * 2.0**-24)
    return gamma * (1 + 2.0**-10) + terms * 2.0**-125


class Limit:
    """`max_similarity` rounded to float32 (`value`), and what a float32 product of normalised rows says about a similarity's side of it.

    A product under `surely_below` belongs to a similarity that is not above the limit, one over `surely_above` to one that is.
    """

    def __init__(self, max_similarity: float, dimensions: int) -> None:
        error = screening_error(dimensions)
        self.value = np.float32(max_similarity)
        self.surely_below: np.float32 = _down(float(self.value) - error)
        self.surely_above: np.float32 = -_down(-float(self.value) - error - ROUNDING)
        self._slack = 2 * error + ROUNDING

    def close_to(self, top: Any) -> Any:
        """The least product that the pair of the largest similarity can have, where `top` (float32, one or several) is the largest."""
        return _down(top.astype(np.float64) - self._slack)


def _down(values: Any) -> Any:
    """Float64 values as float32, never larger than they were."""
    return np.nextafter(np.float32(values), np.float32(-np.inf))


def normalised(rows: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
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


def most_similar(left: Floats, right: Floats, pairs: Pairs) -> tuple[Floats, Indices]:
    """For each row of `left` (b, d), the largest similarity among its `pairs` and the row of `right` that has it, the first of several.

    Float32 (b,) and int64 (b,); -inf and -1 where a row is in no pair.
    """
    found = similarities(left, right, pairs)
    best_first = np.lexsort((pairs[1], -found, pairs[0]))
    rows, first = np.unique(pairs[0][best_first], return_index=True)
    similarity, index = np.full(len(left), -np.inf, np.float32), np.full(len(left), -1)
    similarity[rows], index[rows] = found[best_first[first]], pairs[1][best_first[first]]
    return similarity, index


def similarities(left: Floats, right: Floats, pairs: Pairs) -> Floats:
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
