"""How a block of candidates is decided in one go, as if its rows had come one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deita_tasks.selecting.similarity.exact import Floats, Indices, Pairs, largest_of, pairs_of


class Decision(NamedTuple):
    """What becomes of b rows if there is room for all: `chosen` (c,), the rows to keep. `closest`
    (b,): where it is above the limit, the row's closeness to the closest row kept before it,
    `nearest` (b,), a number among all kept rows with `chosen` after the others.
    """

    chosen: Indices
    closest: Floats
    nearest: Indices


class Space(ABC):
    """Kept rows, and how close others are to them: a similarity, or a distance with its sign
    turned, by some metric.

    The closeness of two rows is one float32 for one pair (`exact`). `approximate` gives it for all
    pairs of two matrices, in any order of summation, with a bound of the error; a row is too close
    when its closeness is above `limit`, equal is allowed.
    """

    limit: np.float32
    kept: int = 0
    sign: int = 1  # -1 where closeness is a distance with its sign turned

    @abstractmethod
    def read(self, positions: Indices) -> tuple[Floats, NDArray[np.bool_]]:
        """The pool's rows at `positions` (b,) as this space compares them, float32 (b, d), and
        which of them can be compared (b,).
        """

    @abstractmethod
    def append(self, rows: Floats) -> None:
        """These rows are kept."""

    @abstractmethod
    def outside(self, rows: Floats) -> tuple[Floats, Indices]:
        """The largest closeness of each row (b, d) to a kept row, and the first kept row that has
        it; only needed where above the limit.
        """

    @abstractmethod
    def approximate(self, left: Floats, right: Floats) -> tuple[NDArray[Any], Any]:
        """About the closeness of all pairs (b, k), and by how much it can be wrong at most: one
        number or one a row (b, 1).
        """

    @abstractmethod
    def exact(self, left: Floats, right: Floats, pairs: Pairs) -> Floats:
        """The closeness of left[i] and right[j] for the p `pairs` (i, j), (p,)."""

    def decide(self, rows: Floats) -> Decision:
        """The decisions on `rows` (b, d), in order, by the sequential rule."""
        closest, nearest = self.outside(rows)
        open_rows = np.flatnonzero(~(closest > self.limit))
        among, error = self.approximate(rows, rows[open_rows])
        stays = _settle(
            self._above(
                rows[open_rows], among[open_rows], error if np.isscalar(error) else error[open_rows]
            )
        )
        chosen = open_rows[stays]
        before = np.where(chosen < np.arange(len(rows))[:, None], among[:, stays], -np.inf)
        inside, place = self.largest(rows, rows[chosen], before, error)
        closer = inside > closest
        closest[closer], nearest[closer] = inside[closer], self.kept + place[closer]
        return Decision(chosen, closest, nearest)

    def largest(
        self, left: Floats, right: Floats, about: NDArray[Any], error: Any
    ) -> tuple[Floats, Indices]:
        """As `outside`, among the rows of `right` (k, d), whose closeness is `about` (b, k) but for
        `error`.
        """
        top = about.max(axis=1, initial=-np.inf, keepdims=True)
        may_be = (about >= top - 2 * error) & (top >= self.limit - error)
        pairs = pairs_of(may_be)
        return largest_of(self.exact(left, right, pairs), pairs, len(left))

    def _above(self, rows: Floats, about: NDArray[Any], error: Any) -> NDArray[np.bool_]:
        """Whether row i is too close to row j before it, (n, n), where their closeness is `about`
        (n, n) but for `error`.
        """
        above: NDArray[np.bool_] = np.tril(about > self.limit + error, -1)
        pairs = pairs_of(np.tril(np.abs(about - self.limit) <= error, -1))
        above[pairs] = self.exact(rows, rows, pairs) > self.limit
        return above


def _settle(above: NDArray[np.bool_]) -> Indices:
    """Which rows stay when each goes that is too close to one that stays before it, as `above`
    says.
    """
    stays = np.ones(len(above), bool)
    for row in np.flatnonzero(above.any(axis=1)):
        stays[row] = not (above[row] & stays).any()
    return np.flatnonzero(stays)
