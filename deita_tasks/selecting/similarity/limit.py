"""The comparison with the similarity limit, for a block of candidates at a time.

`KeptRows.exceeds_limit` is where a similarity is compared with the limit. `KeptRows.decide` applies
it to a block of candidates as if they had come one by one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

from deita_tasks.selecting.arrays import Array, Floats, IndexPairs, Indices, Mask
from deita_tasks.selecting.similarity.exact import largest_per_row, true_pairs


class BlockDecision(NamedTuple):
    """The decisions on a block of b rows, if the budget has room for all of them.

    kept: (k,), the rows of the block to keep. closeness: (b,), each row's closeness to the closest
    row kept before it, meaningful only where it exceeds the limit. nearest: (b,), the number of
    that row; the rows in `kept` are numbered after all earlier ones.
    """

    kept: Indices
    closeness: Floats
    nearest: Indices


class KeptRows(ABC):
    """Base class: the kept rows, and how close other rows are to them by some metric.

    Closeness is a similarity, or a distance with its sign flipped, so larger is closer. Each pair
    has one closeness, a float32 (`exact`). `approximate` computes it for all pairs of two matrices,
    in any order of summation, with an error bound.

    `limit`: the largest closeness that is allowed. `count`: the number of kept rows. `sign`: -1 if
    closeness is a distance with its sign flipped, else 1.
    """

    limit: np.float32
    count: int = 0
    sign: int = 1

    def exceeds_limit(self, closeness: Floats) -> Mask:
        """Return where `closeness` is above the limit; equal to the limit is allowed."""
        return closeness > self.limit

    @abstractmethod
    def read(self, positions: Indices) -> tuple[Floats, Mask]:
        """Return the pool's rows at `positions` (b,), and which of them are comparable, (b,).

        The rows are float32 (b, d), in the form that this class compares.
        """

    @abstractmethod
    def append(self, rows: Floats) -> None:
        """Add `rows` (b, d) to the kept rows."""

    @abstractmethod
    def nearest_kept(self, rows: Floats) -> tuple[Floats, Indices]:
        """Return each row's largest closeness to a kept row, and the first kept row that has it.

        Both are (b,) for `rows` (b, d). They need to be right only where they exceed the limit.
        """

    @abstractmethod
    def approximate(self, left: Floats, right: Floats) -> tuple[Array, Any]:
        """Return the approximate closeness of all pairs, (b, k), and a bound of its error.

        The bound is one number, or one per row of `left`, (b, 1).
        """

    @abstractmethod
    def exact(self, left: Floats, right: Floats, pairs: IndexPairs) -> Floats:
        """Return the closeness of left[i] and right[j] for the p `pairs` (i, j), float32 (p,)."""

    def decide(self, rows: Floats) -> BlockDecision:
        """Return the decisions on `rows` (b, d), in order, by the sequential rule.

        A row is kept if its closeness to no row kept before it exceeds the limit. Rows that earlier
        blocks leave open are then compared with each other.
        """
        closeness, nearest = self.nearest_kept(rows)
        open_rows = np.flatnonzero(~self.exceeds_limit(closeness))
        within_block, error = self.approximate(rows, rows[open_rows])
        open_error = error if np.isscalar(error) else error[open_rows]
        too_close = self._exceeds_limit_before(rows[open_rows], within_block[open_rows], open_error)
        survivors = _keep_greedily(too_close)
        kept = open_rows[survivors]
        is_before = kept < np.arange(len(rows))[:, None]
        before = np.where(is_before, within_block[:, survivors], -np.inf)
        block_closeness, block_nearest = self.largest_closeness(rows, rows[kept], before, error)
        closer = block_closeness > closeness
        closeness[closer] = block_closeness[closer]
        nearest[closer] = self.count + block_nearest[closer]
        return BlockDecision(kept, closeness, nearest)

    def largest_closeness(
        self, left: Floats, right: Floats, approximate: Array, error: Any
    ) -> tuple[Floats, Indices]:
        """Return the same as `nearest_kept`, but for the rows of `right` (k, d).

        `approximate` (b, k) is their closeness to within `error`.
        """
        top = approximate.max(axis=1, initial=-np.inf, keepdims=True)
        may_be_largest = approximate >= top - 2 * error
        may_exceed_limit = top >= self.limit - error
        pairs = true_pairs(may_be_largest & may_exceed_limit)
        return largest_per_row(self.exact(left, right, pairs), pairs, len(left))

    def _exceeds_limit_before(self, rows: Floats, approximate: Array, error: Any) -> Mask:
        """Return whether the closeness of row i to row j before it exceeds the limit, (n, n).

        `approximate` (n, n) is their closeness to within `error`. The pairs it cannot settle are
        decided by their exact closeness.
        """
        exceeds: Mask = np.tril(approximate > self.limit + error, -1)
        uncertain = np.abs(approximate - self.limit) <= error
        pairs = true_pairs(np.tril(uncertain, -1))
        exceeds[pairs] = self.exceeds_limit(self.exact(rows, rows, pairs))
        return exceeds


def _keep_greedily(too_close: Mask) -> Indices:
    """Return the rows that stay if, in order, each row too close to one that stays is dropped.

    `too_close` (n, n): whether row i is too close to row j before it.
    """
    stays = np.ones(len(too_close), bool)
    for row in np.flatnonzero(too_close.any(axis=1)):
        stays[row] = not (too_close[row] & stays).any()
    return np.flatnonzero(stays)
