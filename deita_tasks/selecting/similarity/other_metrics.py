"""Kept rows by another metric than cosine, on the vectors as they are."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from deita_tasks.selecting.arrays import Doubles, Floats, IndexPairs, Indices, Mask
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.similarity.exact import rows_per_chunk, sum_rows
from deita_tasks.selecting.similarity.limit import KeptRows
from deita_tasks.selecting.similarity.products import GrowingMatrix

OtherMetric: TypeAlias = Literal["dot", "euclidean", "manhattan"]


class MetricKeptRows(KeptRows):
    """Compares rows by "dot" product, or by "euclidean" or "manhattan" distance with flipped sign.

    The closeness of two rows: the terms (products, squared differences, or absolute differences) in
    float64, added by `sum_rows`, with a square root for euclidean, rounded to float32. All pairs
    are first computed in float64, distances by torch; where rounding could matter (a relative
    2**-52 per component), by the definition. There are no sketches: they pay only for cosine.
    """

    def __init__(
        self, reader: EmbeddingReader, max_rows: int, metric: OtherMetric, limit: float
    ) -> None:
        self.limit = np.float32(limit)
        self.sign = 1 if metric == "dot" else -1
        self._reader = reader
        self._metric = metric
        self._rows = GrowingMatrix(reader.dimensions, max_rows)

    def read(self, positions: Indices) -> tuple[Floats, Mask]:
        """Return the rows as they are; see KeptRows.read."""
        return self._reader.read(positions, normalise=False)

    def append(self, rows: Floats) -> None:
        """Add `rows` (b, d), as they are, to the kept rows."""
        self._rows.append(rows)
        self.count = self._rows.count

    def nearest_kept(self, rows: Floats) -> tuple[Floats, Indices]:
        """Return the closest kept rows, from all pairs; see KeptRows.nearest_kept."""
        kept = self._rows.view
        closeness, error = self.approximate(rows, kept)
        return self.largest_closeness(rows, kept, closeness, error)

    def approximate(self, left: Floats, right: Floats) -> tuple[Doubles, Doubles]:
        """Return the closeness of all pairs, float64 (b, k), and its error bound per row, (b, 1).

        The bound covers the rounding of the exact closeness to float32 too. It is relative to the
        row's largest distance, or for a dot product to the lengths of the vectors.
        """
        a = left.astype(np.float64)
        b = right.astype(np.float64)
        if self._metric == "dot":
            closeness = a @ b.T
            longest = np.linalg.norm(b, axis=1).max(initial=0)
            scale = np.linalg.norm(a, axis=1) * longest
        else:
            p = 2.0 if self._metric == "euclidean" else 1.0
            closeness = -_pairwise_distances(a, b, p)
            scale = -closeness.min(axis=1, initial=0)
        dimensions = a.shape[1]
        relative_error = 2.0**-22 + (dimensions + 8) * 2.0**-51
        return closeness, relative_error * scale[:, None]

    def exact(self, left: Floats, right: Floats, pairs: IndexPairs) -> Floats:
        """Return the closeness of the pairs, float32 (p,); see KeptRows.exact.

        A distance has its sign flipped. A piece at a time, to bound the float64 copies.
        """
        rows, indices = pairs
        result = np.empty(len(rows), np.float32)
        step = rows_per_chunk(left.shape[1])
        for start in range(0, len(rows), step):
            piece = slice(start, start + step)
            a = left[rows[piece]].astype(np.float64)
            b = right[indices[piece]].astype(np.float64)
            result[piece] = self._closeness(a, b)
        return result

    def _closeness(self, a: Doubles, b: Doubles) -> Doubles:
        """Return the closeness of each row of `a` to the same row of `b`, (p,)."""
        if self._metric == "dot":
            return sum_rows(a * b)
        if self._metric == "euclidean":
            return -np.sqrt(sum_rows((a - b) ** 2))
        return -sum_rows(np.abs(a - b))


def _pairwise_distances(left: Doubles, right: Doubles, p: float) -> Doubles:
    """Return the p-norm distances of all pairs, (b, k), from their differences.

    The usual shortcut through a matrix product loses half of the digits of a small distance.
    """
    import torch

    distances = torch.cdist(
        torch.from_numpy(left),
        torch.from_numpy(right),
        p,
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    result: Doubles = distances.numpy()
    return result
