"""Geometry of the report: a plane to draw conversations in, and how close the selected ones are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deita_tasks.selecting.arrays import Doubles, Floats

# rows that the plane is fitted to: an exact decomposition of at most 2,000 x 2,000, a few seconds
MOST_FITTED = 2_000
BLOCK = 1_024


class Plane(NamedTuple):
    """Two axes through the mean of some vectors; `explained`: the share of their variance along
    each.
    """

    mean: Doubles  # (d,)
    axes: Doubles  # (2, d), orthonormal
    explained: tuple[float, float]

    def place(self, vectors: Floats | Doubles) -> Doubles:
        """Coordinates (n, 2) of normalised `vectors` (n, d), or (2,) of one."""
        return np.asarray((vectors - self.mean) @ self.axes.T)


def fit_plane(vectors: Floats) -> Plane | None:
    """The first two principal components of the first MOST_FITTED of normalised `vectors`; None
    where they do not span a plane.

    From the eigenvectors of the smaller of X X' and X' X, in float64. The sign of an axis is such
    that its largest part is positive.
    """
    rows = vectors[:MOST_FITTED].astype(np.float64)
    if min(rows.shape) < 2:
        return None
    mean = rows.mean(axis=0)
    rows -= mean
    wide = rows.shape[0] < rows.shape[1]
    values, parts = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    total, (second, first) = values.clip(0).sum(), values[-2:]
    if second <= total * 1e-12:
        return None
    axes = parts[:, [-1, -2]].T
    if wide:
        axes = axes @ rows
        axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    largest = np.abs(axes).argmax(axis=1)
    axes *= np.sign(axes[np.arange(2), largest])[:, None]
    return Plane(mean, axes, (float(first / total), float(second / total)))


def nearest_similarities(vectors: Floats, queries: int) -> Floats:
    """For each of the first `queries` of normalised `vectors` (n, d), its largest cosine similarity
    to any other one of the n.
    """
    if len(vectors) < 2:
        return np.empty(0, np.float32)
    largest = []
    for start in range(0, min(queries, len(vectors)), BLOCK):
        block = vectors[start : min(start + BLOCK, queries)]
        similarities = block @ vectors.T
        similarities[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        largest.append(similarities.max(axis=1))
    return np.concatenate(largest)
