"""Rows compared by another metric than cosine similarity, on the vectors as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deita_tasks.selecting.similarity.exact import CHUNK, Floats, Indices, Pairs, summed
from deita_tasks.selecting.similarity.products import Rows
from deita_tasks.selecting.similarity.space import Space
from deita_tasks.selecting.similarity.vectors import Vectors


class MetricSpace(Space):
    """Compares rows as they are: by `metric` "dot", or by "euclidean" or "manhattan" distance,
    which count with their sign turned.

    The closeness of two rows: the terms (products, or differences squared, or their absolute
    values) in float64, added by `summed`, the square root for euclidean, rounded to float32. All
    pairs are computed in float64, distances by torch; where that could be rounding (a relative
    2**-52 for each component), by the definition. There are no sketches here: of distances, only
    those of cosine are worth it.
    """

    def __init__(self, vectors: Vectors, most: int, metric: str, limit: float) -> None:
        self.limit = np.float32(limit)
        self.sign = 1 if metric == "dot" else -1
        self._vectors, self._metric = vectors, metric
        self._rows = Rows(vectors.dimensions, most)

    def read(self, positions: Indices) -> tuple[Floats, NDArray[np.bool_]]:
        return self._vectors.read(positions, normalise=False)

    def append(self, rows: Floats) -> None:
        self._rows.append(rows)
        self.kept = self._rows.count

    def outside(self, rows: Floats) -> tuple[Floats, Indices]:
        return self.largest(rows, self._rows.view, *self.approximate(rows, self._rows.view))

    def approximate(
        self, left: Floats, right: Floats
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        a, b = left.astype(np.float64), right.astype(np.float64)
        if self._metric == "dot":
            about = a @ b.T
            scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1).max(initial=0)
        else:
            about = -_distances(a, b, 2.0 if self._metric == "euclidean" else 1.0)
            scale = -about.min(axis=1, initial=0)
        return about, (2.0**-22 + (a.shape[1] + 8) * 2.0**-51) * scale[:, None]

    def exact(self, left: Floats, right: Floats, pairs: Pairs) -> Floats:
        rows, indices = pairs
        result = np.empty(len(rows), np.float32)
        step = max(1, CHUNK // max(1, left.shape[1]))
        for start in range(0, len(rows), step):
            piece = slice(start, start + step)
            a, b = left[rows[piece]].astype(np.float64), right[indices[piece]].astype(np.float64)
            if self._metric == "dot":
                result[piece] = summed(a * b)
            elif self._metric == "euclidean":
                result[piece] = -np.sqrt(summed((a - b) ** 2))
            else:
                result[piece] = -summed(np.abs(a - b))
        return result


def _distances(
    left: NDArray[np.float64], right: NDArray[np.float64], order: float
) -> NDArray[np.float64]:
    """Of all pairs (b, k), from their differences: the usual shortcut through a product loses half
    of the digits of a small distance.
    """
    import torch

    rows, others = torch.from_numpy(left), torch.from_numpy(right)
    distances: NDArray[np.float64] = torch.cdist(
        rows, others, order, compute_mode="donot_use_mm_for_euclid_dist"
    ).numpy()
    return distances
