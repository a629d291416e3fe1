"""The similarity of two rows, defined so that no block size, thread count, device or BLAS can
change it.

A row is normalised once: its norm in float64 by a summation of fixed order (`normalised`), each
component divided by it in float64 and rounded to float32. The similarity of two such rows a and b
is the sum of the products a[i] * b[i], which are exact in float64, rounded correctly to float64
(`math.fsum`) and then to float32. That is one number for one pair, whoever computes it.

It costs far more than a matrix product, so it is computed only where a matrix product cannot tell.
Of a float32 product m of n terms it is known that |m - a.b| <= gamma(n) * sum |a[i] * b[i]|,
gamma(n) = n u / (1 - n u), u = 2**-24, for EVERY order of summation, with or without fused
multiply-add (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), and that sum is
at most |a| |b|.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Pairs = tuple[Indices, Indices]  # row of one matrix, row of the other

ROUNDING = (
    2.0**-22
)  # over what is lost by rounding a similarity (below 2), and a threshold beside it, to float32
CHUNK = (
    2**16
)  # components of which float64 copies are made at a time: 512 KB, as they are four times slower out of the cache


def screening_error(terms: int) -> float:
    """How far a float32 product of two rows of at most `terms` components and norms of at most 1 +
    2**-12 can be from their similarity.

    The middle term is for products that underflow, where the hardware may flush them to zero; the
    last for the similarity's own rounding.
    """
    gamma = terms * 2.0**-24 / (1 - terms * 2.0**-24)
    return gamma * (1 + 2.0**-10) + terms * 2.0**-125 + ROUNDING


def normalised(rows: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """`rows` (b, d), L2-normalised, float32 (b, d), and which of them (b,) can be: not those with
    NaN, infinity or only zeros.
    """
    wide = rows.astype(np.float64)
    norms = np.sqrt(summed(wide * wide))
    fit = np.isfinite(norms) & (norms > 0)
    wide /= np.where(fit, norms, 1.0)[:, None]
    return wide.astype(np.float32), fit


def summed(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of each row of `terms` (n, d), which is overwritten: x[i] + x[i + w/2] until one is
    left, and so the same everywhere.
    """
    width = terms.shape[1]
    while width > 1:
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0] if width else np.zeros(len(terms))


def pairs_of(which: NDArray[np.bool_]) -> Pairs:
    """Where `which` (rows, indices) is true."""
    rows, indices = np.nonzero(which)
    return rows, indices


def largest_of(values: Floats, pairs: Pairs, rows: int) -> tuple[Floats, Indices]:
    """For each of so many rows, the largest of the `values` (p,) of its `pairs` (row, index), and
    its index, the first of several.

    Float32 (rows,) and int64 (rows,); -inf and -1 where a row is in no pair.
    """
    best_first = np.lexsort((pairs[1], -values, pairs[0]))
    found, first = np.unique(pairs[0][best_first], return_index=True)
    largest, index = np.full(rows, -np.inf, np.float32), np.full(rows, -1)
    largest[found], index[found] = values[best_first[first]], pairs[1][best_first[first]]
    return largest, index


def similarities(left: Floats, right: Floats, pairs: Pairs) -> Floats:
    """The similarity of left[i] and right[j] for each of the p `pairs` (i, j) of normalised rows,
    float32 (p,), as this module defines it.

    A float64 dot product is so near the exact one that nearly always both ends of its error bound
    round to the same float32: first with |a| |b| <= 1 in the bound, then with sum |a[i] * b[i]|,
    which helps near 0. The few others are added exactly.
    """
    rows, indices = pairs
    result = np.empty(len(rows), np.float32)
    step = max(1, CHUNK // max(1, left.shape[1]))
    for start in range(0, len(rows), step):
        a, b = (
            left[rows[start : start + step]].astype(np.float64),
            right[indices[start : start + step]].astype(np.float64),
        )
        settled, unsettled = _settled(np.einsum("ij,ij->i", a, b), 1.0, left.shape[1])
        if unsettled.size:
            a, b = a[unsettled], b[unsettled]
            settled[unsettled], still = _settled(
                np.einsum("ij,ij->i", a, b),
                np.einsum("ij,ij->i", np.abs(a), np.abs(b)),
                left.shape[1],
            )
            for k in still:
                settled[unsettled[k]] = math.fsum(a[k] * b[k])
        result[start : start + step] = settled
    return result + np.float32(0)  # no negative zeros


def _settled(
    dots: NDArray[np.float64], magnitudes: NDArray[np.float64] | float, terms: int
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """`dots` rounded to float32, and the indices of those where the error of a sum of so many terms
    could make it another float32.
    """
    error = (terms + 4) * 2.0**-52 * magnitudes
    low, high = (dots - error).astype(np.float32), (dots + error).astype(np.float32)
    return low, np.flatnonzero(low != high)
