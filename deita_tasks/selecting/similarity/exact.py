"""The similarity of two rows: a number that no block size, thread count, device or BLAS changes.

A row is normalised once. Its norm is computed in float64 by a summation of fixed order
(`normalise_rows`); each component is divided by it in float64 and rounded to float32. The
similarity of two such rows a and b is the sum of the products a[i] * b[i]. These are exact in
float64; their sum is rounded correctly to float64 (`math.fsum`) and then to float32. So each pair
has one similarity, whoever computes it.

This costs far more than a matrix product, so it is computed only where a matrix product cannot
tell. A float32 product m of n terms satisfies |m - a.b| <= gamma(n) * sum |a[i] * b[i]|, where
gamma(n) = n u / (1 - n u) and u = 2**-24, for EVERY order of summation, with or without fused
multiply-add (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). That sum is at
most |a| |b|.
"""

from __future__ import annotations

import math

import numpy as np

from deita_tasks.selecting.arrays import Array, Doubles, Floats, IndexPairs, Indices, Mask

# More than is lost by rounding to float32 a similarity (below 2) and a threshold beside it.
ROUNDING = 2.0**-22
# Components copied to float64 at a time: 512 KB. Outside the cache, the copies are four times
# slower.
CHUNK_COMPONENTS = 2**16


def screening_error(terms: int) -> float:
    """Return how far a float32 product of two rows can be from their similarity.

    It holds for rows of at most `terms` components and norms of at most 1 + 2**-12. The middle term
    covers products that underflow, which the hardware may flush to zero; the last one covers the
    rounding of the similarity itself.
    """
    gamma = terms * 2.0**-24 / (1 - terms * 2.0**-24)
    return gamma * (1 + 2.0**-10) + terms * 2.0**-125 + ROUNDING


def normalise_rows(rows: Array) -> tuple[Floats, Mask]:
    """Return the L2-normalised `rows`, float32 (b, d), and which of them are comparable, (b,).

    A row with NaN, infinity or only zeros is not comparable.
    """
    wide = rows.astype(np.float64)
    norms = np.sqrt(sum_rows(wide * wide))
    comparable = np.isfinite(norms) & (norms > 0)
    wide /= np.where(comparable, norms, 1.0)[:, None]
    return wide.astype(np.float32), comparable


def rows_per_chunk(dimensions: int) -> int:
    """Return how many rows are copied to float64 at a time, at least 1."""
    return max(1, CHUNK_COMPONENTS // max(1, dimensions))


def sum_rows(terms: Doubles) -> Doubles:
    """Return the sum of each row of `terms` (n, d) by pairwise summation; overwrites `terms`.

    Adds x[i] + x[i + w/2] until one term is left. The order is fixed, so the sum is the same
    everywhere.
    """
    width = terms.shape[1]
    while width > 1:
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0] if width else np.zeros(len(terms))


def true_pairs(mask: Mask) -> IndexPairs:
    """Return the (row, column) of every true entry of `mask`."""
    rows, columns = np.nonzero(mask)
    return rows, columns


def largest_per_row(values: Floats, pairs: IndexPairs, row_count: int) -> tuple[Floats, Indices]:
    """Return the largest of each row's values, float32 (row_count,), and its index, int64.

    `values` (p,) belong to the `pairs` (row, index). Of equal values, the smallest index counts. A
    row without a pair gets -inf and -1.
    """
    rows, indices = pairs
    best_first = np.lexsort((indices, -values, rows))
    rows_with_pairs, first = np.unique(rows[best_first], return_index=True)
    best = best_first[first]
    largest = np.full(row_count, -np.inf, np.float32)
    largest_index = np.full(row_count, -1)
    largest[rows_with_pairs] = values[best]
    largest_index[rows_with_pairs] = indices[best]
    return largest, largest_index


def exact_similarities(left: Floats, right: Floats, pairs: IndexPairs) -> Floats:
    """Return the similarity, as defined above, of left[i] and right[j] for p `pairs` (i, j).

    `left` and `right` are normalised; the result is float32 (p,).
    """
    rows, indices = pairs
    result = np.empty(len(rows), np.float32)
    step = rows_per_chunk(left.shape[1])
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        a = left[rows[piece]].astype(np.float64)
        b = right[indices[piece]].astype(np.float64)
        result[piece] = _exact_dots(a, b)
    return result + np.float32(0)  # no negative zeros


def _exact_dots(a: Doubles, b: Doubles) -> Floats:
    """Return the correctly rounded dot products of the rows of `a` and `b`, float32.

    A float64 dot product is so close to the exact one that nearly always both ends of its error
    interval round to the same float32: first with |a| |b| <= 1 in the bound, then with
    sum |a[i] * b[i]|, which helps near 0. The few others are added exactly.
    """
    terms = a.shape[1]
    dots = np.einsum("ij,ij->i", a, b)
    rounded, uncertain = _round_dots(dots, 1.0, terms)
    if not uncertain.size:
        return rounded
    a = a[uncertain]
    b = b[uncertain]
    dots = np.einsum("ij,ij->i", a, b)
    magnitudes = np.einsum("ij,ij->i", np.abs(a), np.abs(b))
    rounded[uncertain], still_uncertain = _round_dots(dots, magnitudes, terms)
    for k in still_uncertain:
        rounded[uncertain[k]] = math.fsum(a[k] * b[k])
    return rounded


def _round_dots(dots: Doubles, magnitudes: Doubles | float, terms: int) -> tuple[Floats, Indices]:
    """Return `dots` in float32, and the indices of those that rounding errors could change.

    The error bound is that of a float64 sum of `terms` products.
    """
    error = (terms + 4) * 2.0**-52 * magnitudes
    low = (dots - error).astype(np.float32)
    high = (dots + error).astype(np.float32)
    return low, np.flatnonzero(low != high)
