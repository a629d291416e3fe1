"""Facility location: every row of the pool is to have a similar row among the kept ones."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from pydantic import Field

from deita_tasks.presets import FACILITY_LOCATION_CANDIDATES
from deita_tasks.records import SelectorResult
from deita_tasks.selecting.arrays import Array, Floats, Indices, Mask
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.greedy import keep_picks, read_candidates
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.strata import Strata

BLOCK_ROWS = 256  # rows compared with all others at once
# Gains this close count as equal. Two rows that cover only each other have the same gain, up to
# rounding.
GAIN_TOLERANCE = 1e-4


class FacilityLocation(Selector):
    """Greedily maximises the sum, over candidates, of the similarity to the most similar kept row.

    The similarity is the cosine, at least 0. The greedy order reaches 1 - 1/e of the best possible
    sum (Nemhauser, Wolsey and Fisher 1978). Scores count only through `candidates`: this many of
    the best rows can be kept and are to be covered; the time grows with their square. Among gains
    within 1e-4 of the largest, the row that comes first by (-evol_score, id) is picked: gains are
    sums of float32 products, with smaller rounding errors than that.

    A row that is not kept is below_budget; a candidate whose vector has NaN, infinity or only zeros
    is unscorable.
    """

    candidates: int = Field(default=FACILITY_LOCATION_CANDIDATES, ge=1)

    def select(
        self,
        ids: Sequence[str],
        evol_scores: Array,
        embeddings: Array | None,
        strata: Sequence[Hashable] | Strata | None = None,
    ) -> SelectorResult:
        """See Selector.select."""
        pool = self.rank_pool(ids, evol_scores, strata)
        reader = EmbeddingReader(embeddings, len(ids))
        ranks, rows = read_candidates(pool, reader, self.candidates)
        keep_picks(pool, ranks, _CoverageGains(rows), self.budget)
        return pool.result()


class _CoverageGains:
    """The marginal gains of the facility location objective.

    `_coverage`: each row's similarity to the most similar kept row. `_gains`: what keeping a row
    would add to their sum.

    A newly kept row covers few others better; only their share in all gains changes and is computed
    again. Lazy evaluation (Minoux 1978) took four times as long on 20,000 clustered rows: each pick
    lowers nearly all gains a little.
    """

    def __init__(self, rows: Floats) -> None:
        count = len(rows)
        self._rows = rows
        self._coverage = np.zeros(count, np.float32)
        self._gains = np.zeros(count)
        unbounded = np.full(count, np.inf, np.float32)
        self._add_gains(np.arange(count), self._coverage, unbounded, 1)

    def find_next(self) -> int | None:
        """Return the row of the largest gain; None if all that are left are excluded."""
        best = self._gains.max()
        if best == -np.inf:
            return None
        return int(np.argmax(self._gains >= best - GAIN_TOLERANCE))

    def pick(self, row: int) -> None:
        """Pick the row that was found."""
        similarity = self._rows @ self._rows[row]
        improved = np.flatnonzero(similarity > self._coverage)
        self._add_gains(improved, self._coverage[improved], similarity[improved], -1)
        self._coverage[improved] = similarity[improved]
        self.exclude(np.array([row]))

    def exclude(self, rows: Indices | Mask) -> None:
        """Never pick these rows (indices or a mask)."""
        self._gains[rows] = -np.inf

    def _add_gains(self, covered: Indices, low: Floats, high: Floats, sign: int) -> None:
        """Add `sign` times each row's gain from the rows `covered`, between `low` and `high`.

        That is the part of its similarity to each of them that lies between the two bounds.
        """
        for start in range(0, len(covered), BLOCK_ROWS):
            piece = slice(start, start + BLOCK_ROWS)
            block = self._rows[covered[piece]]
            low_column, high_column = low[piece, None], high[piece, None]
            between = block @ self._rows.T
            np.clip(between, low_column, high_column, out=between)
            between -= low_column
            self._gains += sign * between.sum(axis=0, dtype=np.float64)
