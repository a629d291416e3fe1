"""A finished selection, made again from the rows that it reached and a new one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from deita_tasks.selecting.arrays import Array, Doubles
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.bounds import Order, Reach
from deita_tasks.selecting.insertion import Insertion, Neighbour
from deita_tasks.selecting.strata import Strata


class ReachedRows(NamedTuple):
    """The n rows that a selection reached: ids, ranking scores (n,), vectors (n, d) or None."""

    ids: Sequence[str]
    scores: Doubles
    vectors: Array | None
    kept: Sequence[str]


class WaitingRows(NamedTuple):
    """The candidates that it did not reach. upper: (m,), what their ranking scores are at most."""

    ids: Sequence[str]
    upper: Doubles


class StratumLabels(NamedTuple):
    """The stratum's label of every distinct row of the pool, by the row's number; of each id."""

    labels: Sequence[str]
    numbers: dict[str, int]


class SecondSelection:
    """What one more row changes where strata, or an order of its own, decide about places.

    The strategy itself selects again, from the reached rows and the new one. Nothing changes before
    the place of the new row, so the decision about it is that of a run. A row that was not reached
    may come in where a place gets free; it is counted, and which of them comes in takes a run.
    """

    def __init__(
        self,
        selector: Selector,
        reached: ReachedRows,
        waiting: WaitingRows,
        labels: StratumLabels | None = None,
    ) -> None:
        """labels: if a column makes strata."""
        self._selector = selector
        self._reached = reached
        self._waiting = waiting
        self._labels = labels
        self._limits: dict[str, tuple[int, int]] = {}
        self._numbers = np.empty(0, np.int64)  # of the reached rows, then of the waiting ones
        if labels is not None:
            self._limits = _limits_of(selector.divide(labels.labels))
            ids = [*reached.ids, *waiting.ids]
            self._numbers = np.array([labels.numbers[row] for row in ids], np.int64)

    def why_open(self, label: str | None) -> str | None:
        """Return why only a run can decide about a row of this label; None if this can."""
        if self._labels is None:
            return None
        if label is None:
            return f"the record has no column {self._selector.strata_column!r}, which makes strata"
        limits = _limits_of(self._divide(label))
        if any(limits[name] != limit for name, limit in self._limits.items()):
            return "the budget is divided anew with it"
        return None

    def insert(
        self,
        id: str,
        score: float,
        vector: Array | None,
        nearest: Neighbour | None,
        label: str | None = None,
    ) -> Insertion:
        """Return what the row `id` would do. nearest: the kept row most similar to it."""
        ids = [*self._reached.ids, id]
        scores = np.append(self._reached.scores, score)
        vectors = self._reached.vectors
        if vectors is not None and vector is not None:
            vectors = np.concatenate([vectors, np.asarray(vector, vectors.dtype)[None, :]])
        strata = None
        of_every: Strata | None = None
        if self._labels is not None and label is not None:
            of_every = self._strata_of_every(label)
            strata = of_every.take(np.arange(len(ids)))
        result = self._selector.select(ids, scores, vectors, strata)
        rejected = {rejection.id: rejection for rejection in result.rejected}
        if id in rejected:
            own = rejected[id]
            blocker = None
            if own.reason == "too_similar":
                assert own.nearest_id is not None and own.similarity is not None
                blocker = Neighbour(own.nearest_id, float(own.similarity), True)
            return Insertion(own.reason, nearest, blocker)
        before = set(self._reached.kept)
        leaving = [row for row in self._reached.kept if row in rejected]
        return Insertion(
            "selected",
            nearest,
            pushed_out=[row for row in leaving if rejected[row].reason == "too_similar"],
            cut_off=[row for row in leaving if rejected[row].reason != "too_similar"],
            let_in=[row for row in result.kept if row not in before and row != id],
            open_places=self._count_open(ids, scores, result.kept, of_every),
        )

    def _divide(self, label: str) -> Strata:
        """Return the strata of the pool with a row of this label, which is the last."""
        assert self._labels is not None
        return self._selector.divide([*self._labels.labels, label])

    def _strata_of_every(self, label: str) -> Strata:
        """Return the strata of the reached rows, then the new one, then the waiting ones."""
        assert self._labels is not None
        new = len(self._labels.labels)
        rows = np.insert(self._numbers, len(self._reached.ids), new)
        return self._divide(label).take(rows)

    def _count_open(
        self, ids: Sequence[str], scores: Doubles, kept: Sequence[str], strata: Strata | None
    ) -> int:
        """Return how many rows that were not reached may be reached now.

        ids, scores: of the reached rows and the new one. strata: of these and the waiting ones.
        """
        if not self._selector.stops_at_budget:
            return 0
        number_of = {row: number for number, row in enumerate(ids)}
        every_id = pa.array([*ids, *self._waiting.ids], pa.string())
        every_score = np.concatenate([scores, self._waiting.upper])
        kept_rows = np.array([number_of[row] for row in kept], np.int64)
        reach = Reach(Order(every_id), every_score, kept_rows, self._selector.budget, strata)
        return int(np.count_nonzero(reach.reaches(every_score)[len(scores) :]))


def _limits_of(strata: Strata) -> dict[str, tuple[int, int]]:
    """Return the least and the most rows to keep of each stratum, by its name."""
    limits = zip(strata.minimum.tolist(), strata.maximum.tolist(), strict=True)
    return dict(zip(strata.names, limits, strict=True))
