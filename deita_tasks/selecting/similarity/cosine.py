"""Rows compared by cosine similarity, with far fewer multiplications than all pairs of them have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deita_tasks.selecting.similarity.exact import (
    Floats,
    Indices,
    Pairs,
    largest_of,
    screening_error,
    similarities,
)
from deita_tasks.selecting.similarity.products import Rows, Screen
from deita_tasks.selecting.similarity.space import Space
from deita_tasks.selecting.similarity.vectors import Vectors

# a similarity costs as much as about so many products of a matrix product: measured at d = 384 to
# 4096
PAIR_COST = 100


class CosineSpace(Space):
    """Finds the nearest kept rows with a quarter of the arithmetic of the full matrix product,
    where the data let it.

    A row's sketch is its first s - 1 components and the norm of the rest. By Cauchy and Schwarz the
    product of two sketches is at least that of the rows, so a pair whose sketches stay under the
    limit needs no more. For two rows of similarity c it is near c s/d + 1 - s/d: under a limit of
    0.9, with s = d/4, for most rows that have little to do with each other. The few pairs left get
    their exact similarity. Where they are not few (a low limit, rows that are all alike), sketches
    of d/2 follow, then the full product.
    """

    def __init__(
        self, vectors: Vectors, most: int, max_similarity: float, screen: Callable[[Rows], Screen]
    ) -> None:
        self.limit = np.float32(max_similarity)
        self._vectors = vectors
        self._error = screening_error(vectors.dimensions)
        self._rows = Rows(vectors.dimensions, most)
        self._new_screen = screen
        self._screen = screen(self._rows)
        self._resize(vectors.dimensions // 4)

    @property
    def sketch_width(self) -> int | None:
        """The width of the sketches in use, None where the full product is."""
        return self._width if self._sketches is not None else None

    def read(self, positions: Indices) -> tuple[Floats, NDArray[np.bool_]]:
        return self._vectors.read(positions)

    def append(self, rows: Floats) -> None:
        self._rows.append(rows)
        if self._sketches is not None:
            self._sketches.append(sketch(rows, self._width))
        self.kept = self._rows.count

    def outside(self, rows: Floats) -> tuple[Floats, Indices]:
        pairs = self._by_sketches(rows)
        if pairs is None:
            pairs = self._by_products(rows)
        return largest_of(self.exact(rows, self._rows.view, pairs), pairs, len(rows))

    def approximate(self, left: Floats, right: Floats) -> tuple[Floats, float]:
        return left @ right.T, self._error

    def exact(self, left: Floats, right: Floats, pairs: Pairs) -> Floats:
        return similarities(left, right, pairs)

    def _by_sketches(self, block: Floats) -> Pairs | None:
        """All pairs that may be above the limit, or None where there are too many to be worth it."""
        if self._sketches is None:
            return None
        least = self.limit - self._error
        asked = np.flatnonzero(self._sketch_screen.compare(sketch(block, self._width)) >= least)
        most = max(4 * len(block), len(block) * self.kept // PAIR_COST // 2)
        pairs = self._sketch_screen.near(asked, np.full(len(asked), least), most)
        if pairs is None:
            self._resize(2 * self._width)
        return pairs

    def _by_products(self, block: Floats) -> Pairs:
        """For each row that may be above the limit, the pairs that may be its most similar."""
        top = self._screen.compare(block)
        asked = np.flatnonzero(top >= self.limit - self._error)
        pairs = self._screen.near(asked, top[asked] - np.float32(2 * self._error))
        assert pairs is not None
        return pairs

    def _resize(self, width: int) -> None:
        self._width = width
        self._sketches: Rows | None = None
        if 8 <= width <= self._vectors.dimensions // 2:
            self._sketches = Rows(width, self._rows.most)
            self._sketches.append(sketch(self._rows.view, width))
            self._sketch_screen = self._new_screen(self._sketches)


def sketch(rows: Floats, width: int) -> Floats:
    """The first width - 1 components of each row, and the norm of the others, rounded up: float32
    (n, width).
    """
    rest = rows[:, width - 1 :].astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", rest, rest)) * (1 + 2.0**-22)
    return np.hstack((rows[:, : width - 1], norms[:, None].astype(np.float32)))
