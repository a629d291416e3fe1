"""What one more row would change in a finished selection, without a new run."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from deita_tasks.selecting.arrays import Array, Doubles, Floats, Indices, Mask
from deita_tasks.selecting.diverse import Diverse
from deita_tasks.selecting.ranked_pool import RankedPool
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.similarity.exact import largest_per_row, true_pairs
from deita_tasks.selecting.similarity.limit import KeptRows

BLOCK_ROWS = 256  # released rows compared with the kept ones at a time


class Neighbour(NamedTuple):
    """A kept row, its similarity (or distance) to the new one, and whether it comes before it."""

    id: str
    similarity: float
    is_before: bool


@dataclass(frozen=True)
class Insertion:
    """What becomes of a new row, and of the others because of it.

    nearest: the most similar kept row of all; None without vectors. blocker: the most similar of
    those that come before it, if it is too similar. pushed_out: kept rows that are too similar to
    it, or to a row of `let_in`. cut_off: kept rows for which the budget has no place left. let_in:
    rows that only rows of `pushed_out` had blocked. All three are ids in the order of the
    selection. open_places: places that are left for rows that the selection has not reached; which
    of them come in takes a run.
    """

    decision: Literal["selected", "too_similar", "below_budget", "stratum_full", "unscorable"]
    nearest: Neighbour | None = None
    blocker: Neighbour | None = None
    pushed_out: list[str] = field(default_factory=list)
    cut_off: list[str] = field(default_factory=list)
    let_in: list[str] = field(default_factory=list)
    open_places: int = 0


class FinishedWalk:
    """A finished selection from the best score down, into which a new row can be inserted.

    Nothing changes before the place of the new row. If it is kept there, the rows behind it are
    decided again: a kept row is dropped where it is too similar to the new one, and a row that only
    dropped rows had blocked comes in, and may block others in turn. All of that concerns rows that
    the selection has reached, so it is exact. A row that it has not reached can only fill places
    that are left at the end. Without strata.

    selector: a Diverse; None for a strategy without a limit. ids, scores (n,): the rows that the
    selection reached and could compare. blockers: int64 (n,), the position of the row that blocked
    each; -1 for a kept row. vectors: (n, d), row i belongs to ids[i]. all_reached: whether there is
    no candidate beyond these.

    A place is a rank among the n rows, from 0 on; a number counts the kept rows. Attributes:
    `kept`, the place of each number. `numbers`: the number at each place, or -1. `blockers`: the
    number of the row that blocked the one at each place, or -1. `vectors`: of the kept rows.
    """

    def __init__(
        self,
        selector: Diverse | None,
        budget: int,
        ids: Sequence[str],
        scores: Doubles,
        blockers: Indices,
        vectors: Array | None,
        all_reached: bool,
    ) -> None:
        order = RankedPool(ids, scores).order
        self._ids = [ids[position] for position in order]
        self._scores = scores[order]
        self._budget = budget
        self._all_reached = all_reached
        self._has_limit = selector is not None
        self._order = order
        is_kept = blockers < 0
        self.kept = np.flatnonzero(is_kept[order])
        number_of = np.full(len(ids), -1, np.int64)
        number_of[order[self.kept]] = np.arange(len(self.kept))
        blocked_by = np.where(is_kept, -1, number_of[blockers])
        self.numbers = number_of[order]
        self.blockers = blocked_by[order]
        self._comparer = selector or Diverse(budget=1)
        self._measure: KeptRows | None = None
        self.vectors = np.empty((0, 0), np.float32)
        if vectors is not None:
            reader = EmbeddingReader(vectors, len(ids))
            self._measure = self._comparer.new_kept_rows(reader, 0)
            self.vectors = self.read(self.kept)

    @property
    def dimensions(self) -> int | None:
        """The width d of the vectors, which a new vector must have; None without vectors."""
        if self._measure is None:
            return None
        return int(self.vectors.shape[1])

    @property
    def last_score(self) -> float | None:
        """The score of the last row kept; None if there is none."""
        if not len(self.kept):
            return None
        last = self.kept[-1]
        return float(self._scores[last])

    @property
    def measure(self) -> KeptRows:
        """What compares two rows."""
        assert self._measure is not None
        return self._measure

    def read(self, places: Indices) -> Floats:
        """Return the vectors at m places, float32 (m, d), in the form the strategy compares."""
        rows, _ = self.measure.read(self._order[places])
        return rows

    def insert(self, id: str, score: float, vector: Array | None = None) -> Insertion:
        """Return what the row `id` would do. vector: (d,), in the scale of the others."""
        place = self._place_of(id, score)
        before = int(np.searchsorted(self.kept, place))
        if vector is None or self._measure is None:
            if before >= self._budget:
                return Insertion("below_budget")
            return self._keep(_ChangedWalk(self), place, before, None)
        row = self._read_new(vector)
        if row is None:
            return Insertion("unscorable")
        approximate, error = self.measure.approximate(row, self.vectors)
        nearest = self._nearest(row, approximate, error, before)
        if before >= self._budget:
            return Insertion("below_budget", nearest)
        walk = _ChangedWalk(self)
        if self._has_limit:
            is_close = self._exceeds(row, self.vectors, approximate, error)[0]
            if is_close[:before].any():
                earlier = approximate[:, :before]
                blocker = self._nearest(row, earlier, error, before)
                return Insertion("too_similar", nearest, blocker)
            walk.add(row)
            later = before + np.flatnonzero(is_close[before:])
            walk.drop(later)
            walk.run()
        return self._keep(walk, place, before, nearest)

    def nearest(self, id: str, score: float, vector: Array | None) -> Neighbour | None:
        """Return the most similar kept row; None without vectors, or if there is none."""
        if vector is None or self._measure is None:
            return None
        row = self._read_new(vector)
        if row is None:
            return None
        place = self._place_of(id, score)
        before = int(np.searchsorted(self.kept, place))
        approximate, error = self.measure.approximate(row, self.vectors)
        return self._nearest(row, approximate, error, before)

    def _place_of(self, id: str, score: float) -> int:
        """Return how many of the reached rows come before the new one."""
        first = int(np.searchsorted(-self._scores, -score, side="left"))
        last = int(np.searchsorted(-self._scores, -score, side="right"))
        tied = self._ids[first:last]
        earlier_ids = [other for other in tied if other < id]
        return first + len(earlier_ids)

    def _read_new(self, vector: Array) -> Floats | None:
        """Return the vector as the strategy compares it, (1, d); None if it cannot be compared."""
        matrix = np.asarray(vector)[None, :]
        reader = EmbeddingReader(matrix, 1)
        measure = self._comparer.new_kept_rows(reader, 0)
        first = np.zeros(1, np.int64)
        rows, comparable = measure.read(first)
        return rows if comparable[0] else None

    def _nearest(
        self, row: Floats, approximate: Array, error: Any, before: int
    ) -> Neighbour | None:
        """Return the most similar of the first kept rows, as many as `approximate` (1, m) has."""
        end = approximate.shape[1]
        if not end:
            return None
        top = approximate.max(axis=1, keepdims=True)
        may_be_nearest = approximate >= top - 2 * error
        pairs = true_pairs(may_be_nearest)
        closeness = self.measure.exact(row, self.vectors, pairs)
        largest, numbers = largest_per_row(closeness, pairs, 1)
        similarity = self.measure.sign * largest[0]
        similarity = similarity + np.float32(0)  # no negative zeros
        number = int(numbers[0])
        id = self._ids[self.kept[number]]
        return Neighbour(id, float(similarity), number < before)

    def too_close(self, rows: Floats, others: Floats) -> Mask:
        """Return which pairs of n and m rows are above the limit: bool (n, m)."""
        approximate, error = self.measure.approximate(rows, others)
        return self._exceeds(rows, others, approximate, error)

    def _exceeds(self, rows: Floats, others: Floats, approximate: Array, error: Any) -> Mask:
        """Return the same as `too_close`. approximate: closeness of all pairs, to within error."""
        measure = self.measure
        exceeds: Mask = approximate > measure.limit + error
        distance = np.abs(approximate - measure.limit)
        pairs = true_pairs(distance <= error)
        closeness = measure.exact(rows, others, pairs)
        exceeds[pairs] = measure.exceeds_limit(closeness)
        return exceeds

    def _keep(
        self, walk: _ChangedWalk, place: int, before: int, nearest: Neighbour | None
    ) -> Insertion:
        """Return the selection with the new row kept, from what changes behind it."""
        dropped_numbers = sorted(walk.dropped)
        dropped = self.kept[dropped_numbers]
        kept = np.delete(self.kept, dropped_numbers)
        let_in = np.array(sorted(walk.let_in), np.int64)
        places = np.sort(np.concatenate([kept, let_in]))
        others = self._budget - 1  # that the budget has room for beside the new row
        last = len(self._ids)
        if len(places) >= others:
            last = int(places[others - 1]) if others > before else place - 1
        # A row beyond the last place is not reached any more, whatever would block it.
        beyond = np.concatenate([kept[kept > last], dropped[dropped > last]])
        open_places = 0
        if not self._all_reached:
            open_places = max(0, others - len(places))
        return Insertion(
            "selected",
            nearest,
            pushed_out=self._names(dropped[dropped <= last]),
            cut_off=self._names(np.sort(beyond)),
            let_in=self._names(let_in[let_in <= last]),
            open_places=open_places,
        )

    def _names(self, places: Indices) -> list[str]:
        """Return the ids at some places."""
        return [self._ids[place] for place in places.tolist()]


class _ChangedWalk:
    """The walk behind the new row: which kept rows are dropped, and which rows come in instead.

    dropped: numbers of kept rows. let_in: places of rows.
    """

    def __init__(self, walk: FinishedWalk) -> None:
        self.dropped: set[int] = set()
        self.let_in: list[int] = []
        self._walk = walk
        self._new_rows: list[Floats] = []  # the new row and those let in, in order
        self._rows: dict[int, Floats] = {}  # the vectors of the rows to decide, by place
        self._close: dict[int, Indices] = {}  # the kept rows that each is too close to
        self._queue: list[int] = []  # places to decide

    def add(self, row: Floats) -> None:
        """Keep a row (1, d) that was not kept before."""
        self._new_rows.append(row)

    def drop(self, numbers: Indices) -> None:
        """Drop these kept rows when their turn comes."""
        for number in numbers.tolist():
            if number not in self.dropped:
                self.dropped.add(number)
                place = int(self._walk.kept[number])
                heapq.heappush(self._queue, place)

    def run(self) -> None:
        """Decide every row whose decision may change, in order."""
        while self._queue:
            place = heapq.heappop(self._queue)
            number = int(self._walk.numbers[place])
            if number >= 0:
                self._release(number)
            else:
                self._decide(place)

    def _release(self, number: int) -> None:
        """Look again at the rows that a dropped row was the nearest to."""
        walk = self._walk
        released = np.flatnonzero(walk.blockers == number)
        for start in range(0, len(released), BLOCK_ROWS):
            places = released[start : start + BLOCK_ROWS]
            rows = walk.read(places)
            is_close = walk.too_close(rows, walk.vectors)
            for row, place in enumerate(places.tolist()):
                self._close[place] = np.flatnonzero(is_close[row])
                self._rows[place] = rows[row : row + 1]
                heapq.heappush(self._queue, place)

    def _decide(self, place: int) -> None:
        """Keep the row at `place` unless a row kept before it is too close."""
        row = self._rows.pop(place)
        close = self._close.pop(place)
        end = int(np.searchsorted(self._walk.kept, place))
        is_earlier = close < end
        earlier = close[is_earlier].tolist()
        if not self.dropped.issuperset(earlier):
            return
        new_rows = np.concatenate(self._new_rows)
        if self._walk.too_close(row, new_rows).any():
            return
        self.let_in.append(place)
        self.add(row)
        self.drop(close[~is_earlier])
