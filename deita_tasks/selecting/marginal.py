"""Greedy selection by marginal relevance: a row's own score against its similarity to the kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence

import numpy as np
from pydantic import Field

from deita_tasks.records import SelectorResult
from deita_tasks.selecting.arrays import Array, Doubles, Floats, Indices, Mask
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.greedy import keep_picks, read_candidates
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.similarity.exact import (
    exact_similarities,
    largest_per_row,
    screening_error,
    true_pairs,
)
from deita_tasks.selecting.strata import Strata

# After this many picks, all rows are compared with them in one product. In between, only the rows
# that could be next are.
PICKS_PER_FULL_UPDATE = 64
UPDATE_ROWS = 256  # rows brought up to date together between full updates
BLOCK_ROWS = 4096  # rows of a full update that are compared at once


class MarginalRelevance(Selector):
    """Base class of `mmr` and `k_center`: the greedy order of marginal relevance.

    The next row is always the one with the largest weight * relevance - (1 - weight) * (largest
    cosine similarity to a row picked before); the row with the best evol score comes first.
    Relevance is the evol score, scaled to 0..1 over the candidates. Ties go by (-evol_score, id).
    The similarity is exactly the one of similarity/exact.py, so the result depends neither on
    threads nor on the order of the input. No row is too similar here: a row that is not picked is
    below_budget, and every candidate whose vector has NaN, infinity or only zeros is unscorable.

    `candidates`: choose from this many of the best rows only; all by default. Their vectors are
    held in float32, and each is multiplied with each pick.
    """

    candidates: int | None = Field(default=None, ge=1)

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
        positions = pool.order[ranks]
        scores = np.asarray(evol_scores, np.float64)[positions]
        greedy = _LazyGreedy(rows, scores, self.relevance_weight())
        keep_picks(pool, ranks, greedy, self.budget)
        return pool.result()

    @abstractmethod
    def relevance_weight(self) -> float:
        """Return the weight of a row's relevance, 0 to 1."""


class _LazyGreedy:
    """The lazy greedy algorithm (Minoux 1978).

    A row's value only falls as others are picked. So if the row with the largest value is up to
    date, it is the next pick, whatever the others would fall to.

    `rows`: normalised, (n, d), best score first. `weight`: of the relevance.
    """

    def __init__(self, rows: Floats, scores: Doubles, weight: float) -> None:
        self.picks: list[int] = []
        self._rows = rows
        count, dimensions = rows.shape
        self._error = screening_error(dimensions)
        self._weighted_relevance = weight * _scale_to_unit(scores)
        self._similarity_weight = 1 - weight
        # The largest similarity to the first `_compared_picks` picks, row by row.
        self._top_similarity = np.full(count, -2, np.float32)  # below any similarity
        self._compared_picks = np.zeros(count, np.int64)
        self._is_open = np.ones(count, bool)
        self._value = self._value_of(np.arange(count))
        self._fully_updated_picks = 0

    def find_next(self) -> int | None:
        """Return the row of the largest value; None if all that are left are excluded."""
        new_picks = len(self.picks) - self._fully_updated_picks
        if new_picks >= PICKS_PER_FULL_UPDATE:
            self._update_all()
        while True:
            best = int(self._value.argmax())
            if not self._is_open[best]:
                return None
            is_up_to_date = self._compared_picks[best] == len(self.picks)
            if is_up_to_date:
                return best
            self._update_best(best)

    def pick(self, row: int) -> None:
        """Pick the row that was found."""
        self.picks.append(row)
        self.exclude(np.array([row]))

    def exclude(self, rows: Indices | Mask) -> None:
        """Never pick these rows (indices or a mask)."""
        self._is_open[rows] = False
        self._value[rows] = -np.inf

    def _update_all(self) -> None:
        """Bring every row up to date, a block at a time.

        After it, a row has to be compared with the later picks only.
        """
        count = len(self._rows)
        for start in range(0, count, BLOCK_ROWS):
            end = min(start + BLOCK_ROWS, count)
            self._update(np.arange(start, end))
        self._fully_updated_picks = len(self.picks)

    def _update_best(self, best: int) -> None:
        """Bring the rows of the largest values up to date, `best` among them."""
        count = len(self._rows)
        if count > UPDATE_ROWS:
            promising = np.argpartition(-self._value, UPDATE_ROWS)[:UPDATE_ROWS]
        else:
            promising = np.arange(count)
        is_outdated = self._compared_picks[promising] < len(self.picks)
        self._update(np.union1d(promising[is_outdated], best))

    def _update(self, rows: Indices) -> None:
        """Compare these rows with the picks since the last full update.

        Only a product that may exceed the largest similarity so far gets an exact similarity.
        """
        new_picks = self.picks[self._fully_updated_picks :]
        block = self._rows[rows]
        picks = self._rows[new_picks]
        top = self._top_similarity[rows]
        products = block @ picks.T
        threshold = np.maximum(products.max(axis=1), top) - np.float32(2 * self._error)
        pairs = true_pairs(products >= threshold[:, None])
        similarities = exact_similarities(block, picks, pairs)
        largest, _ = largest_per_row(similarities, pairs, len(rows))
        self._top_similarity[rows] = np.maximum(top, largest)
        self._compared_picks[rows] = len(self.picks)
        is_open = self._is_open[rows]
        self._value[rows] = np.where(is_open, self._value_of(rows), -np.inf)

    def _value_of(self, rows: Indices) -> Doubles:
        """Return the value of m rows, float64 (m,): weighted relevance less weighted similarity.

        The similarity is the largest to the picks compared so far, so a value can only be too high.
        """
        similarity = self._top_similarity[rows].astype(np.float64)
        penalty = self._similarity_weight * similarity
        value: Doubles = self._weighted_relevance[rows] - penalty
        return value


def _scale_to_unit(scores: Doubles) -> Doubles:
    """Return `scores` scaled to 0..1; all 0 if they are equal."""
    count = len(scores)
    spread = np.ptp(scores) if count else 0.0
    if not spread:
        return np.zeros(count)
    scaled: Doubles = (scores - scores.min()) / spread
    return scaled
