"""The rows kept so far, and the most similar of them to each row of a block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deita_tasks.selecting.screen import Rows, Screen
from deita_tasks.selecting.similarity import Floats, Indices, Limit, Pairs, most_similar

PAIR_COST = 100  # a similarity costs as much as about so many products of a matrix product: measured at d = 384 to 4096


class Kept:
    """Finds the nearest kept rows with a quarter of the arithmetic of the full matrix product, where the data let it.

    A row's sketch is its first s - 1 components and the norm of the rest. By Cauchy and Schwarz the product of two sketches is at least
    that of the rows, so a pair whose sketches stay under the limit needs no more. For two rows of similarity c it is near
    c s/d + 1 - s/d: under a limit of 0.9, with s = d/4, for most rows that have little to do with each other. The few pairs left get
    their exact similarity. Where they are not few (a low limit, rows that are all alike), sketches of d/2 follow, then the full product.
    """

    def __init__(self, dimensions: int, most: int, limit: Limit, screen: Callable[[Rows], Screen]) -> None:
        self.rows = Rows(dimensions, most)
        self._limit, self._new_screen = limit, screen
        self._screen = screen(self.rows)
        self._resize(dimensions // 4)

    @property
    def sketch_width(self) -> int | None:
        """The width of the sketches in use, None where the full product is."""
        return self._width if self._sketches is not None else None

    def append(self, rows: Floats) -> None:
        self.rows.append(rows)
        if self._sketches is not None:
            self._sketches.append(sketch(rows, self._width))

    def nearest(self, block: Floats) -> tuple[Floats, Indices]:
        """The largest similarity of each row of `block` (b, d) to a kept row, (b,), and the first kept row that has it, (b,).

        Where no similarity is above the limit it may also be -inf and -1: then there is no need to know.
        """
        pairs = self._by_sketches(block)
        return most_similar(block, self.rows.view, self._by_products(block) if pairs is None else pairs)

    def _by_sketches(self, block: Floats) -> Pairs | None:
        """All pairs that may be above the limit, or None where there are too many to be worth it."""
        if self._sketches is None:
            return None
        top = self._sketch_screen.compare(sketch(block, self._width))
        asked = np.flatnonzero(top >= self._limit.surely_below)
        most = max(4 * len(block), len(block) * self.rows.count // PAIR_COST // 2)
        pairs = self._sketch_screen.near(asked, np.full(len(asked), self._limit.surely_below), most)
        if pairs is None:
            self._resize(2 * self._width)
        return pairs

    def _by_products(self, block: Floats) -> Pairs:
        """For each row that may be above the limit, the pairs that may be its most similar."""
        top = self._screen.compare(block)
        asked = np.flatnonzero(top >= self._limit.surely_below)
        pairs = self._screen.near(asked, self._limit.close_to(top[asked]))
        assert pairs is not None
        return pairs

    def _resize(self, width: int) -> None:
        self._width = width
        self._sketches: Rows | None = None
        if 8 <= width <= self.rows.view.shape[1] // 2:
            self._sketches = Rows(width, self.rows.most)
            self._sketches.append(sketch(self.rows.view, width))
            self._sketch_screen = self._new_screen(self._sketches)


def sketch(rows: Floats, width: int) -> Floats:
    """The first width - 1 components of each row, and the norm of the others, rounded up: float32 (n, width)."""
    rest = rows[:, width - 1 :].astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", rest, rest)) * (1 + 2.0**-22)
    return np.hstack((rows[:, : width - 1], norms[:, None].astype(np.float32)))
