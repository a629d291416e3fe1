"""The parts that greedy strategies share: their candidates, and the loop that keeps the picks."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from deita_tasks.selecting.arrays import Floats, Indices, Mask
from deita_tasks.selecting.ranked_pool import RankedPool
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader


def read_candidates(
    pool: RankedPool, reader: EmbeddingReader, limit: int | None
) -> tuple[Indices, Floats]:
    """Return the ranks and normalised vectors of the best `limit` rows, or of all.

    Rejects those that cannot be compared, and leaves them out.
    """
    count = pool.candidate_count
    ranks = np.arange(min(count, limit or count))
    rows, comparable = reader.read(pool.order[ranks])
    pool.reject_unscorable(ranks[~comparable])
    if comparable.all():  # no copy of the vectors
        return ranks, rows
    return ranks[comparable], rows[comparable]


class GreedyPicker(Protocol):
    """Picks one candidate after another, by its index."""

    def find_next(self) -> int | None:
        """Return the next pick; None if all candidates left are excluded."""

    def pick(self, row: int) -> None:
        """Pick the row that was found."""

    def exclude(self, rows: Indices | Mask) -> None:
        """Never pick these rows (indices or a mask)."""


def keep_picks(pool: RankedPool, ranks: Indices, picker: GreedyPicker, budget: int) -> None:
    """Keep the picks of `picker`, until the budget is met or every stratum is full.

    `ranks` are those of the picker's candidates.
    """
    picker.exclude(~pool.has_room(ranks))
    places = budget
    while places and len(ranks):
        row = picker.find_next()
        if row is None:
            return
        picked = ranks[[row]]
        if pool.count_fitting(picked):
            picker.pick(row)
            pool.keep(picked)
            places -= 1
        stratum_is_full = not pool.has_room(picked).all()
        if stratum_is_full:
            picker.exclude(~pool.has_room(ranks))
