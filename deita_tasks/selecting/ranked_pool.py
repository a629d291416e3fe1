"""The pool as a strategy works on it: its rows by rank, and the decision on each of them.

The decisions are stored in columns, so a row costs a few bytes and no objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deita_tasks.errors import UsageError
from deita_tasks.records import SelectorResult
from deita_tasks.selecting.arrays import Doubles, Floats, Indices, Mask
from deita_tasks.selecting.rejections import (
    BELOW_BUDGET,
    REASONS,
    STRATUM_FULL,
    TOO_SIMILAR,
    UNSCORABLE,
    Rejections,
)
from deita_tasks.selecting.strata import Places, Strata
from deita_tasks.selecting.token_places import TokenPlaces

KEPT = len(REASONS)  # the code of a row that is not rejected


class RankedPool:
    """The rows of a pool, ranked by score, and the decision on each.

    Rank 0 is the best row. Rows with a finite score, the candidates, are ranked by (-score, id).
    Those without one come last, ranked by id, and are unscorable from the start. So ranks do not
    depend on the order of the input. A strategy decides rows by rank; a row without a decision
    is stratum_full if its stratum is, else below_budget.

    `strata` holds the stratum of each row, and how the `budget` is divided among them. Raises
    UsageError if ids repeat, or if scores do not match them.

    Attributes: `order`, int64 (n,), the input position of each rank; `candidate_count`, the number
    of rows with a finite score.
    """

    def __init__(
        self, ids: Sequence[str], evol_scores: Any, strata: Strata | None = None, budget: int = 0
    ) -> None:
        scores = _check_scores(ids, evol_scores)
        _check_distinct(ids)
        finite = np.isfinite(scores)
        candidates = _sort_by_score(ids, np.flatnonzero(finite), scores)
        unscorable = _sort_by_id(ids, np.flatnonzero(~finite))
        self.ids = ids
        self.candidate_count = candidates.size
        self.order = np.concatenate((candidates, unscorable))
        # What the places know each rank by: its stratum, or itself if rows differ in size.
        self._strata: Indices | None = None
        self._places: Places | TokenPlaces
        if strata is not None and strata.sizes is not None:
            self._strata = np.arange(len(ids))
            by_rank = strata.take(self.order)
            assert by_rank.sizes is not None
            limits = (by_rank.minimum, by_rank.maximum)
            self._places = TokenPlaces(by_rank.codes, by_rank.sizes, *limits)
        elif strata is not None:
            self._strata = strata.codes[self.order]
            self._places = Places(strata, budget)
        self._init_decisions()

    def _init_decisions(self) -> None:
        """Set all rows to undecided: below the budget, or unscorable after the candidates.

        Codes, nearest rows and similarities are (n,), in rank order.
        """
        rows = self.order.size
        self._kept: list[Indices] = []
        self._codes = np.full(rows, BELOW_BUDGET, np.int8)
        self._codes[self.candidate_count :] = UNSCORABLE
        self._nearest = np.full(rows, -1, np.int64)
        self._similarities = np.full(rows, np.nan, np.float32)

    def has_room(self, ranks: Indices) -> Mask:
        """Return which of these m rows belong to a stratum that is not full, (m,)."""
        if self._strata is None:
            return np.ones(len(ranks), bool)
        return ~self._places.are_full(self._strata[ranks])

    def count_fitting(self, ranks: Indices) -> int:
        """Return how many of these m rows can be kept, from the first on.

        The rows belong to strata with room. The stratum of the next one ends.
        """
        if self._strata is None:
            return len(ranks)
        return self._places.count_fitting(self._strata[ranks])

    def fill_stratum(self, ranks: Indices) -> Mask:
        """Return which of these m rows fill a stratum if they are kept in this order, (m,).

        Right up to the first of them.
        """
        if self._strata is None:
            return np.zeros(len(ranks), bool)
        return self._places.fill(self._strata[ranks])

    def drop_full_strata(self, ranks: Indices) -> Indices:
        """Return the rows whose strata have room for them when they are kept in this order."""
        if self._strata is None:
            return ranks
        return ranks[self._places.admit(self._strata[ranks])]

    def keep(self, ranks: Indices) -> None:
        """Keep these rows, in this order, after those kept before."""
        self._kept.append(ranks)
        self._codes[ranks] = KEPT
        if self._strata is not None:
            self._places.take(self._strata[ranks])

    def reject_too_similar(self, ranks: Indices, nearest: Indices, similarities: Floats) -> None:
        """Reject m rows as too similar to the kept rows of ranks `nearest`, int64 (m,).

        similarities: float32 (m,), in the metric of the strategy.
        """
        self._codes[ranks] = TOO_SIMILAR
        self._nearest[ranks] = self.order[nearest]
        self._similarities[ranks] = similarities

    def reject_unscorable(self, ranks: Indices) -> None:
        """Reject these rows because their vectors cannot be compared."""
        self._codes[ranks] = UNSCORABLE

    def result(self) -> SelectorResult:
        """Return every id once: kept in the order chosen, or rejected in rank order."""
        self._reject_full_strata()
        none = np.empty(0, np.int64)
        kept = self.order[np.concatenate([none, *self._kept])]
        rejected = np.flatnonzero(self._codes != KEPT)
        rejections = Rejections(
            self.ids,
            self.order[rejected],
            self._codes[rejected],
            self._nearest[rejected],
            self._similarities[rejected],
        )
        kept_ids = [self.ids[position] for position in kept]
        return SelectorResult(kept_ids, rejections)

    def _reject_full_strata(self) -> None:
        """Tell rows of a full stratum from those for which the budget was full."""
        if self._strata is not None:
            is_full = self._places.full_before_budget()[self._strata]
            self._codes[is_full & (self._codes == BELOW_BUDGET)] = STRATUM_FULL


def _check_scores(ids: Sequence[str], evol_scores: Any) -> Doubles:
    """Return the scores as float64 (n,), one per id; NaN and infinite ones pass.

    Raises UsageError for anything but numbers, or another shape.
    """
    try:
        scores = np.asarray(evol_scores, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"evol_scores are not numbers: {error}") from error
    if scores.shape != (len(ids),):
        raise UsageError(
            f"evol_scores of shape {scores.shape} for {len(ids)} ids: expected one score per id"
        )
    return scores


def _check_distinct(ids: Sequence[str]) -> None:
    """Raise UsageError that names the first id that occurs a second time."""
    if len(set(ids)) == len(ids):
        return
    earlier: set[str] = set()
    for row_id in ids:
        if row_id in earlier:
            raise UsageError(
                f"id {row_id!r} occurs more than once: expected distinct ids; "
                "drop exact duplicates first"
            )
        earlier.add(row_id)


def _sort_by_score(ids: Sequence[str], positions: Indices, scores: Doubles) -> Indices:
    """Return `positions` sorted by (-score, id).

    Only rows with equal scores are sorted by id: comparing strings is slow, and ties are few.
    """
    order = _sort_descending(positions, scores)
    descending = scores[order]
    same_as_next = descending[1:] == descending[:-1]
    tied = np.zeros(order.size, bool)
    tied[1:] |= same_as_next
    tied[:-1] |= same_as_next
    tied_by_id = _sort_by_id(ids, order[tied])
    order[tied] = _sort_descending(tied_by_id, scores)
    return order


def _sort_descending(positions: Indices, scores: Doubles) -> Indices:
    """Return `positions` by falling score; equal scores stay in their order."""
    return positions[np.argsort(-scores[positions], kind="stable")]


def _sort_by_id(ids: Sequence[str], positions: Indices) -> Indices:
    """Return the positions int64 (m,) by ascending id, in the order of code points."""
    return np.array(sorted(positions.tolist(), key=ids.__getitem__), np.int64)
