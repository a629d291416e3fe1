"""The ledger of a selection: one line for every id, in columns, so that it costs bytes and not
objects a row.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deita_tasks.errors import UsageError
from deita_tasks.records import Reason, Rejection, SelectorResult

REASONS: tuple[Reason, ...] = ("below_budget", "too_similar", "unscorable")
BELOW_BUDGET, TOO_SIMILAR, UNSCORABLE = range(len(REASONS))
KEPT = len(REASONS)


class Rejections(Sequence[Rejection]):
    """A read-only sequence of Rejection that makes each one when it is asked for.

    `positions`: int64 (r,), indices into the ids that were given. `codes`: int8 (r,), indices into
    REASONS. `nearest`: int64 (r,), the index of the kept row that blocked it, or -1.
    `similarities`: float32 (r,), NaN where there is none.
    """

    def __init__(
        self,
        ids: Sequence[str],
        positions: NDArray[np.int64],
        codes: NDArray[np.int8],
        nearest: NDArray[np.int64],
        similarities: NDArray[np.float32],
    ) -> None:
        self._ids = ids
        self.positions, self.codes, self.nearest, self.similarities = (
            positions,
            codes,
            nearest,
            similarities,
        )

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Rejection: ...
    @overload
    def __getitem__(self, index: slice) -> Rejections: ...
    def __getitem__(self, index: int | slice) -> Rejection | Rejections:
        if isinstance(index, slice):
            return Rejections(
                self._ids,
                self.positions[index],
                self.codes[index],
                self.nearest[index],
                self.similarities[index],
            )
        identity, reason, nearest = (
            self._ids[self.positions[index]],
            REASONS[self.codes[index]],
            self.nearest[index],
        )
        if nearest < 0:
            return Rejection(identity, reason)
        return Rejection(identity, reason, self._ids[nearest], float(self.similarities[index]))

    def columns(self) -> dict[str, pa.Array]:
        """The fields of all Rejections at once, as Arrow arrays: a hundred times as fast as one by
        one.
        """
        ids, no_row = (
            pa.array(self._ids, pa.string()),
            pa.array(self.nearest, mask=self.nearest < 0),
        )
        return {
            "id": ids.take(pa.array(self.positions)),
            "reason": pa.array(REASONS).take(pa.array(self.codes)),
            "nearest_id": ids.take(no_row).fill_null(""),
            "similarity": pa.array(self.similarities),
        }

    def __repr__(self) -> str:
        counts = {reason: int((self.codes == code).sum()) for code, reason in enumerate(REASONS)}
        return f"<{len(self)} rejected: {counts}>"


class Ledger:
    """A pool in evol-score order, and what became of each of its rows; a strategy fills it in.

    Rank r is the r-th best row: candidates by (-evol_score, id), then the rows without a finite
    evol score, by id, which are unscorable from the start. So neither ranks nor anything that
    follows from them depend on the order of the input. `order`: int64 (n,), the position of rank r
    in the input. `candidates`: how many rows have a finite evol score. `strata`: the stratum of
    each row, of which at most `per_stratum` rows may be kept; not looked at where that is None.
    Raises UsageError where the ids are not distinct, or the scores or strata do not match them.
    """

    def __init__(
        self,
        ids: Sequence[str],
        evol_scores: Any,
        strata: Sequence[Hashable] | None = None,
        per_stratum: int | None = None,
    ) -> None:
        scores = _checked_scores(ids, evol_scores)
        finite = np.isfinite(scores)
        best_first = _ranked(ids, np.flatnonzero(finite), scores)
        self.ids = ids
        self.candidates = best_first.size
        self.order = np.concatenate((best_first, _by_id(ids, np.flatnonzero(~finite))))
        self.strata = None if per_stratum is None else _codes(ids, strata)[self.order]
        self._room = np.full(
            0 if self.strata is None else self.strata.max(initial=-1) + 1, per_stratum or 0
        )
        self._kept: list[NDArray[np.int64]] = []
        self._codes = np.full(self.order.size, BELOW_BUDGET, np.int8)
        self._codes[self.candidates :] = UNSCORABLE
        self._nearest = np.full(self.order.size, -1, np.int64)
        self._similarities = np.full(self.order.size, np.nan, np.float32)

    def has_room(self, ranks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these rows are of a stratum that is not full yet, (m,)."""
        full: NDArray[np.bool_] = (
            np.zeros(len(ranks), bool)
            if self.strata is None
            else self._room[self.strata[ranks]] == 0
        )
        return ~full

    def room_after(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """For how many more rows its stratum has room when each of these rows is kept, in this
        order, (m,); below 0 where it had none.
        """
        if self.strata is None:
            return np.full(len(ranks), len(self.order))
        strata = self.strata[ranks]
        by_stratum = np.argsort(strata, kind="stable")
        grouped = strata[by_stratum]
        room = np.empty(len(ranks), np.int64)
        room[by_stratum] = (
            self._room[grouped] - 1 - (np.arange(len(ranks)) - np.searchsorted(grouped, grouped))
        )
        return room

    def keep(self, ranks: NDArray[np.int64]) -> None:
        """These rows are chosen, in this order, after those chosen before."""
        self._kept.append(ranks)
        self._codes[ranks] = KEPT
        if self.strata is not None:
            self._room -= np.bincount(self.strata[ranks], minlength=len(self._room))

    def block(
        self,
        ranks: NDArray[np.int64],
        nearest: NDArray[np.int64],
        similarities: NDArray[np.float32],
    ) -> None:
        """These rows are too similar to the kept rows of ranks `nearest`."""
        self._codes[ranks] = TOO_SIMILAR
        self._nearest[ranks] = self.order[nearest]
        self._similarities[ranks] = similarities

    def give_up(self, ranks: NDArray[np.int64]) -> None:
        """These rows have a vector that cannot be compared."""
        self._codes[ranks] = UNSCORABLE

    def selection(self) -> SelectorResult:
        """Every id once: kept in the order chosen, or rejected in rank order; a row that was never
        decided is below_budget.
        """
        kept = np.concatenate([np.empty(0, np.int64), *self._kept])
        out = np.flatnonzero(self._codes != KEPT)
        rejections = Rejections(
            self.ids, self.order[out], self._codes[out], self._nearest[out], self._similarities[out]
        )
        return SelectorResult([self.ids[position] for position in self.order[kept]], rejections)


def _checked_scores(ids: Sequence[str], evol_scores: Any) -> NDArray[np.float64]:
    try:
        scores = np.asarray(evol_scores, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"evol_scores are not numbers: {error}") from error
    if scores.shape != (len(ids),):
        raise UsageError(
            f"evol_scores of shape {scores.shape} for {len(ids)} ids: expected one "
            "score for each id"
        )
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(identity for identity in ids if identity in seen or seen.add(identity))  # type: ignore[func-returns-value]
        raise UsageError(
            f"id {twice!r} occurs more than once: expected distinct ids; drop exact "
            "duplicates first"
        )
    return scores


def _codes(ids: Sequence[str], strata: Sequence[Hashable] | None) -> NDArray[np.int64]:
    """Each row's stratum as a number from 0 on."""
    if strata is None or len(strata) != len(ids):
        arrived = "no strata" if strata is None else f"{len(strata)} strata"
        raise UsageError(
            f"{arrived} for {len(ids)} ids: expected the stratum of each id, as "
            "per_stratum is given"
        )
    numbers: dict[Hashable, int] = {}
    return np.fromiter(
        (numbers.setdefault(stratum, len(numbers)) for stratum in strata), np.int64, len(ids)
    )


def _ranked(
    ids: Sequence[str], positions: NDArray[np.int64], scores: NDArray[np.float64]
) -> NDArray[np.int64]:
    """`positions` by (-score, id). Only rows whose score another row has too are sorted by id:
    strings are dear, ties are few.
    """
    order = positions[np.argsort(-scores[positions], kind="stable")]
    descending = scores[order]
    same = descending[1:] == descending[:-1]
    tied = np.zeros(order.size, bool)
    tied[1:] |= same
    tied[:-1] |= same
    by_id = _by_id(ids, order[tied])
    order[tied] = by_id[np.argsort(-scores[by_id], kind="stable")]
    return order


def _by_id(ids: Sequence[str], positions: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array(sorted(positions.tolist(), key=ids.__getitem__), np.int64)
