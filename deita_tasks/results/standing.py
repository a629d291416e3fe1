"""Where a new row would stand in the result of a run: rank, nearest rows, and who would leave.

Everything is in memory, so that a row with a score and a vector takes milliseconds; with strata or
a random draw the strategy selects again, which takes longer the more candidates there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_strata import column_texts, columns_of
from deita_tasks.decisions import EXCLUDED, NO_PLACE, LedgerRow, ledger_rows
from deita_tasks.results.record_check import NamedRow, NearestRow
from deita_tasks.results.second_selection import (
    ReachedRows,
    SecondSelection,
    StratumLabels,
    WaitingRows,
)
from deita_tasks.selecting.arrays import Array, Doubles, Mask
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.diverse import Diverse
from deita_tasks.selecting.evol import ranking_scores
from deita_tasks.selecting.insertion import FinishedWalk, Insertion, Neighbour
from deita_tasks.selecting.random import Random
from deita_tasks.selecting.top_score import TopScore


class Ranks(NamedTuple):
    """The first and the last rank that a row may have, of so many ranked rows, itself included."""

    first: int
    last: int
    ranked: int


class Standing:
    """The rows of a finished selection, for new rows to stand among.

    why_open: why only a run can decide about a new row; None if the rows at hand are enough.
    """

    def __init__(
        self,
        ledger: pa.Table,
        pool: Pool,
        selector: Selector,
        vectors: Array | None,
        why_open: str | None = None,
    ) -> None:
        """vectors: float32 (n, d), of the rows of `reached(ledger)`; None without an embedder.

        why_open: a reason beside those of the strategy.
        """
        self.selector = selector
        self.why_open = why_open or _why_open(selector)
        is_first = pc.field("duplicate_of").is_null()
        is_good = pc.field("id").is_valid()
        distinct = ledger.filter(is_first & is_good)
        self._rows = distinct.combine_chunks()
        self._ids = self._rows["id"].combine_chunks()
        has_rank = pc.is_valid(self._rows["evol_upper"])
        ranked = self._rows.filter(has_rank)
        self._ranked_ids = ranked["id"].combine_chunks()
        self._lower = ranked["evol_lower"].to_numpy()
        self._upper = ranked["evol_upper"].to_numpy()
        rows = reached(ledger)
        if self.why_open is not None:  # then only the kept rows are looked at
            is_kept = pc.equal(rows["decision"], "selected")
            rows = rows.filter(is_kept)
            if vectors is not None:
                vectors = vectors[is_kept.to_numpy()]
        self._walk = self._open_walk(rows, pool, vectors)
        self._second: SecondSelection | None = None
        if self.why_open is None and (selector.has_strata or isinstance(selector, Random)):
            self._second = self._open_second(rows, pool, vectors)

    def _open_second(self, rows: pa.Table, pool: Pool, vectors: Array | None) -> SecondSelection:
        """Return what selects again from some rows of the ledger, with their vectors."""
        decision = rows["decision"]
        kept = rows.filter(pc.equal(decision, "selected"))
        reached_rows = ReachedRows(
            rows["id"].to_pylist(), self._ranking(rows, pool), vectors, kept["id"].to_pylist()
        )
        no_place = pa.array(NO_PLACE)
        waiting = self._rows.filter(pc.is_in(self._rows["decision"], value_set=no_place))
        waiting_rows = WaitingRows(waiting["id"].to_pylist(), self._upper_ranking(waiting, pool))
        column = self.selector.strata_column
        labels = None
        if column is not None and self.selector.has_strata:
            excluded = pa.array(EXCLUDED)
            is_left = pc.invert(pc.is_in(self._rows["decision"], value_set=excluded))
            ids = self._rows.filter(is_left)["id"].combine_chunks()
            texts = column_texts(pool, ids, column)
            numbers = {id: number for number, id in enumerate(ids.to_pylist())}
            labels = StratumLabels(texts, numbers)
        return SecondSelection(self.selector, reached_rows, waiting_rows, labels)

    def _upper_ranking(self, rows: pa.Table, pool: Pool) -> Doubles:
        """Return the most that the ranking scores of some rows can be."""
        if self.selector.ranking == "evol":
            upper: Doubles = rows["evol_upper"].to_numpy()
            return upper
        if (
            pc.any(pc.is_null(rows["complexity"])).as_py()
            or pc.any(pc.is_null(rows["quality"])).as_py()
        ):
            return np.full(len(rows), np.inf)
        return self._ranking(rows, pool)

    def why_unknown(self, label: str | None) -> str | None:
        """Return why only a run can decide about a new row; label: of its stratum, if any."""
        if self.why_open is not None or self._second is None:
            return self.why_open
        return self._second.why_open(label)

    def _open_walk(self, rows: pa.Table, pool: Pool, vectors: Array | None) -> FinishedWalk:
        """Return the walk over some rows of the ledger, with their vectors."""
        blocker_ids = rows["nearest_id"].combine_chunks()
        ids = rows["id"].combine_chunks()
        blockers = pc.index_in(blocker_ids, value_set=ids)
        below = pc.equal(self._rows["decision"], "below_budget")
        diverse = self.selector if isinstance(self.selector, Diverse) else None
        return FinishedWalk(
            diverse,
            self.selector.budget,
            ids.to_pylist(),
            self._ranking(rows, pool),
            np.asarray(pc.fill_null(blockers, -1), np.int64),
            vectors,
            all_reached=not pc.any(below).as_py(),
        )

    def _ranking(self, rows: pa.Table, pool: Pool) -> Doubles:
        """Return the score that the strategy ranks by, of each of `rows`."""
        if self.selector.rank_by is not None:
            values: Doubles = rows["evol_score"].to_numpy()
            return values
        lengths = None
        if self.selector.ranking == "length":
            words = columns_of(pool, rows["id"], ["n_words"])
            lengths = words["n_words"].to_numpy()
        return ranking_scores(
            self.selector.ranking,
            self.selector.evol_score,
            rows["complexity"],
            rows["quality"],
            lengths,
        )

    @property
    def dimensions(self) -> int | None:
        """The width of the vectors; None without vectors."""
        return self._walk.dimensions

    @property
    def last_score(self) -> float | None:
        """The ranking score of the last row selected; None if there is none."""
        return self._walk.last_score

    def find(self, id: str) -> LedgerRow | None:
        """Return the row of the ledger with this id; None for none."""
        rows = self._named(pa.array([id]))
        return rows[0] if rows else None

    def _named(self, ids: pa.Array) -> list[LedgerRow]:
        """Return the rows of the ledger with these ids."""
        places = pc.drop_null(pc.index_in(ids, value_set=self._ids))
        return ledger_rows(self._rows.take(places))

    def ranks(self, id: str, evol_score: float) -> Ranks:
        """Return where a new row with this evol score would rank."""
        first = _before(self._ranked_ids, self._lower, id, evol_score)
        last = _before(self._ranked_ids, self._upper, id, evol_score)
        return Ranks(1 + first, 1 + last, len(self._upper) + 1)

    def insert(
        self, id: str, score: float, vector: Array | None = None, label: str | None = None
    ) -> Insertion:
        """Return what a new row would do.

        score: that which the strategy ranks by. label: of its stratum, if a column makes strata.
        """
        if self._second is not None:
            nearest = self.nearest(id, score, vector)
            return self._second.insert(id, score, vector, nearest, label)
        return self._walk.insert(id, score, vector)

    def nearest(self, id: str, score: float, vector: Array | None) -> Neighbour | None:
        """Return the most similar selected row."""
        return self._walk.nearest(id, score, vector)

    def name(self, ids: Sequence[str]) -> list[NamedRow]:
        """Return where these rows stand."""
        return [_name(row) for row in self._named(pa.array(ids, pa.string()))]

    def describe(self, neighbour: Neighbour | None) -> NearestRow | None:
        """Return a neighbour with its place."""
        if neighbour is None:
            return None
        (row,) = self.name([neighbour.id])
        return NearestRow(row=row, similarity=neighbour.similarity, is_before=neighbour.is_before)


def reached(ledger: pa.Table) -> pa.Table:
    """Return the rows that a selection from the best score down looked at and compared."""
    decisions = pa.array(["selected", "too_similar"])
    is_reached = pc.is_in(ledger["decision"], value_set=decisions)
    return ledger.filter(is_reached).combine_chunks()


def _name(row: LedgerRow) -> NamedRow:
    """Return where a row of the ledger stands."""
    return NamedRow(id=row.id or "", place=row.place, evol_score=row.evol_score, rank=row.rank)


def _before(ids: pa.Array, scores: Doubles, id: str, score: float) -> int:
    """Return how many rows come before a new one by (-score, id)."""
    is_tied: Mask = scores == score
    tied = ids.filter(pa.array(is_tied))
    better = int(np.count_nonzero(scores > score))
    earlier_ids = [other for other in tied.to_pylist() if other < id]
    return better + len(earlier_ids)


def _why_open(selector: Selector) -> str | None:
    """Return why only a run can decide about a new row; None if the ledger is enough."""
    if selector.clusters is not None:
        return "its clusters are made anew with it"
    if isinstance(selector, Random):
        return None
    if isinstance(selector, Diverse):
        return None
    if isinstance(selector, TopScore) and selector.stops_at_budget:
        return None
    return f"the strategy {type(selector).__name__} looks at every row"
