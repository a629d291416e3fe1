"""Bounds of ranking scores while some scores are not computed, and which rows they let us skip.

A strategy that takes rows from the best score down stops where its budget is full. A row whose
score cannot reach that place needs no score. A score lies between LOWEST and HIGHEST, so with these
in place of the scores that are not computed, the ranking score is bounded: by the same float64
operations in the same order, and rounding is monotone, so a bound is never on the wrong side of the
score itself, not by a last bit.

This is minimal probing (Chang and Hwang, MPro, SIGMOD 2002): a row has to be computed if and only
if its upper bound comes before the row that fills the budget.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.selecting.arrays import Doubles, Indices, Mask
from deita_tasks.selecting.evol import (
    FlatColumn,
    ListColumn,
    Ranking,
    TurnAggregation,
    flatten,
    ranking_scores,
)
from deita_tasks.selecting.strata import Strata, filling_rows

LOWEST, HIGHEST = 1.0, 6.0  # of every scorer


class PartialScores(NamedTuple):
    """The scores of one kind of n rows, some of which are not computed.

    values: list<float>, a score a turn; null for a row that is not computed, or has no score.
    is_computed: bool (n,).
    """

    values: ListColumn
    is_computed: Mask

    @property
    def has_none(self) -> Mask:
        """Which rows are computed and have no score: bool (n,)."""
        has_none: Mask = self.values.is_null().to_numpy() & self.is_computed
        return has_none


def bound_scores(
    ranking: Ranking,
    aggregation: TurnAggregation,
    complexity: PartialScores,
    quality: PartialScores,
    turns: Indices,
    score: float,
) -> Doubles:
    """Return the scores that `ranking_scores` gives with `score` for what is not computed.

    float64 (n,): with LOWEST the lower bounds, with HIGHEST the upper ones; both are the score of a
    row that is computed. NaN for a row without one. turns: int64 (n,).
    """
    return ranking_scores(
        ranking, aggregation, _fill(complexity, turns, score), _fill(quality, turns, score)
    )


def _fill(scores: PartialScores, turns: Indices, score: float) -> pa.ListArray:
    """Return the lists of scores, with `score` for every turn of a row that is not computed."""
    column = flatten(scores.values)
    lengths = np.where(scores.is_computed, np.diff(column.offsets), turns)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    values = np.full(offsets[-1], score)
    values[np.repeat(scores.is_computed, lengths)] = _values_of(column, scores.is_computed)
    has_no_score = column.null_rows & scores.is_computed
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(values), mask=pa.array(has_no_score)
    )


def _values_of(column: FlatColumn, rows: Mask) -> Doubles:
    """Return the values of some rows, one row after the other."""
    return column.values[np.repeat(rows, np.diff(column.offsets))]


class Order:
    """The order of n rows by (-score, id), whatever their scores are.

    ids: distinct. `id_ranks`: int64 (n,), the place of each id among all ids, ascending.
    """

    def __init__(self, ids: pa.Array) -> None:
        by_id = pc.sort_indices(ids).to_numpy()
        self.id_ranks = np.empty(len(ids), np.int64)
        self.id_ranks[by_id] = np.arange(len(ids))

    def first(self, rows: Indices, scores: Doubles, count: int) -> Indices:
        """Return the `count` first of `rows`, in order. scores: float64 (n,)."""
        if count < len(rows):
            of_rows = scores[rows]
            place = len(rows) - count
            cut = np.partition(of_rows, place)[place]
            rows = rows[of_rows >= cut]  # with all that tie
        order = np.lexsort((self.id_ranks[rows], -scores[rows]))
        return rows[order[:count]]

    def up_to(self, scores: Doubles, row: int, score: float) -> Mask:
        """Return which rows do not come after `row`, whose score is `score`: bool (n,).

        A row with the score NaN is not one of them.
        """
        is_tied = (scores == score) & (self.id_ranks <= self.id_ranks[row])
        up_to: Mask = (scores > score) | is_tied
        return up_to


class Reach:
    """How far down the order a finished selection looked.

    It reaches a row if, at the row's place, neither the budget nor the row's stratum was full.
    """

    def __init__(
        self, order: Order, scores: Doubles, kept: Indices, budget: int, strata: Strata | None
    ) -> None:
        """scores: float64 (n,). kept: the rows that were kept, in order."""
        self._order = order
        self._strata = strata
        self._ends: list[tuple[int | None, int, float]] = []  # stratum or all, row, its score
        if len(kept) >= budget:
            self._add_end(None, int(kept[-1]), scores)
        if strata is not None:
            for stratum, place in filling_rows(strata, budget, kept).items():
                if place >= 0:
                    self._add_end(stratum, int(kept[place]), scores)
                else:  # full from the start
                    self._ends.append((stratum, 0, np.inf))

    def _add_end(self, stratum: int | None, row: int, scores: Doubles) -> None:
        """Add where a stratum (None: the whole budget) was full: right after `row`."""
        self._ends.append((stratum, row, float(scores[row])))

    def reaches(self, scores: Doubles) -> Mask:
        """Return which rows would be reached if these were their scores: bool (n,)."""
        reached = ~np.isnan(scores)
        for stratum, row, score in self._ends:
            up_to_end = self._order.up_to(scores, row, score)
            if stratum is not None and self._strata is not None:
                up_to_end |= self._strata.codes != stratum
            reached &= up_to_end
        return reached
