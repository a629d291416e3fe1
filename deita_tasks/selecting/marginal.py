"""One row after another by what it adds: its own worth against its similarity to what is kept
already.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from deita_tasks.records import SelectorResult
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.ledger import Ledger
from deita_tasks.selecting.similarity.exact import (
    Floats,
    Indices,
    largest_of,
    pairs_of,
    screening_error,
    similarities,
)
from deita_tasks.selecting.similarity.vectors import Vectors

# so many picks are compared with all rows in one product; in between, only with the rows that could
# be next
WAVE = 64
BATCH = 256  # rows that are brought up to date together
BLOCK = 4096


class Marginal(Selector):
    """The greedy order of weight * worth - (1 - weight) * (largest cosine similarity to a row
    picked before); the best evol score first.

    Worth is the evol score, scaled to 0..1 over the rows that are considered; equal rows go by
    (-evol_score, id). The similarity is the one of selecting/similarity.py, exactly, so the result
    depends neither on threads nor on the order of the input. Nobody is too similar here: who is not
    picked is below_budget, and every considered row whose vector has NaN, infinity or only zeros is
    unscorable.

    `candidates`: so many of the best rows are considered, or all. Their vectors are held in
    float32, and each is multiplied with each pick.
    """

    candidates: int | None = Field(default=None, ge=1)

    def select(
        self,
        ids: Sequence[str],
        evol_scores: NDArray[Any],
        embeddings: NDArray[Any] | None,
        strata: Sequence[Hashable] | None = None,
    ) -> SelectorResult:
        """See Selector.select."""
        ledger = self.ledger(ids, evol_scores, strata)
        ranks, rows = considered(ledger, Vectors(embeddings, len(ids)), self.candidates)
        scores = np.asarray(evol_scores, np.float64)[ledger.order[ranks]]
        picking = _Picking(rows, scores, self.share())
        while len(picking.picks) < min(self.budget, len(rows)):
            pick = picking.next()
            if pick is None:  # every stratum is full
                break
            ledger.keep(ranks[[pick]])
            if not ledger.has_room(ranks[[pick]])[0]:
                picking.close(~ledger.has_room(ranks))
        return ledger.selection()

    def share(self) -> float:
        """The weight of a row's worth."""
        raise NotImplementedError


def considered(ledger: Ledger, vectors: Vectors, candidates: int | None) -> tuple[Indices, Floats]:
    """The ranks and normalised vectors of the best `candidates` rows, or of all; without those
    whose vectors cannot be compared.
    """
    ranks = np.arange(min(ledger.candidates, candidates or ledger.candidates))
    rows, fit = vectors.read(ledger.order[ranks])
    ledger.give_up(ranks[~fit])
    return (ranks, rows) if fit.all() else (ranks[fit], rows[fit])


class _Picking:
    """The lazy greedy order: a row's value only falls while others are picked, so one that is up to
    date and the best is the next.

    `rows`: normalised, (n, d), best score first. `top`: the largest similarity to the first `seen`
    picks, row by row.
    """

    def __init__(self, rows: Floats, scores: NDArray[np.float64], weight: float) -> None:
        self.rows, self.picks = rows, []
        self._error = screening_error(rows.shape[1])
        spread = np.ptp(scores) if len(scores) else 0.0
        self._worth = weight * (
            (scores - scores.min(initial=np.inf)) / spread if spread else np.zeros(len(scores))
        )
        self._unlike = 1 - weight
        self._top = np.full(len(rows), -2, np.float32)  # below any similarity
        self._seen = np.zeros(len(rows), np.int64)
        self._open = np.ones(len(rows), bool)
        self._value = self._worth - self._unlike * self._top.astype(np.float64)
        self._wave = 0

    picks: list[int]

    def next(self) -> int | None:
        """The next row in the order; None where all that are left are closed."""
        if len(self.picks) - self._wave >= WAVE:
            for start in range(0, len(self.rows), BLOCK):
                self._update(np.arange(start, min(start + BLOCK, len(self.rows))))
            self._wave = len(self.picks)
        while True:
            best = int(self._value.argmax())
            if not self._open[best]:
                return None
            if self._seen[best] == len(self.picks):
                self.picks.append(best)
                self.close(np.array([best]))
                return best
            hopeful = (
                np.argpartition(-self._value, BATCH)[:BATCH]
                if len(self.rows) > BATCH
                else np.arange(len(self.rows))
            )
            self._update(np.union1d(hopeful[self._seen[hopeful] < len(self.picks)], best))

    def close(self, rows: NDArray[Any]) -> None:
        """These rows (indices or a mask) are out of the running."""
        self._open[rows] = False
        self._value[rows] = -np.inf

    def _update(self, rows: Indices) -> None:
        """Compare these rows with the picks since the last wave; only a product that may be over
        the largest similarity counts.
        """
        picks = self.rows[self.picks[self._wave :]]
        block = self.rows[rows]
        products = block @ picks.T
        least = np.maximum(products.max(axis=1), self._top[rows]) - np.float32(2 * self._error)
        pairs = pairs_of(products >= least[:, None])
        largest, _ = largest_of(similarities(block, picks, pairs), pairs, len(rows))
        self._top[rows] = np.maximum(self._top[rows], largest)
        self._seen[rows] = len(self.picks)
        value = self._worth[rows] - self._unlike * self._top[rows].astype(np.float64)
        self._value[rows] = np.where(self._open[rows], value, -np.inf)
