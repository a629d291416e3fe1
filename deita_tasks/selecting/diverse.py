"""The paper's selection (section 2.5, Algorithm 1, "Repr Filter"): best evol score first, unless too similar to a row kept already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from deita_tasks.records import Selection
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.kept import Kept
from deita_tasks.selecting.ledger import Ledger
from deita_tasks.selecting.screen import screens_on
from deita_tasks.selecting.similarity import Floats, Indices, Limit, most_similar, similarities
from deita_tasks.selecting.vectors import Vectors


class Diverse(Selector):
    """Exactly the sequential greedy rule, at the speed of the matrix products that it has to do.

    Rows are taken by (-evol_score, id). A row is kept when its largest similarity to any row kept before it is not above `max_similarity`
    (equal is allowed); the selection ends when `budget` rows are kept. The similarity of two rows, cosine, is the float32 number
    that selecting/similarity.py defines, and the limit is `max_similarity` rounded to float32. (At a limit of 1 a copy may still be
    rejected, as its similarity may be 1 + 2**-23; `top_score` is the strategy without a limit.)

    Rejected rows: "too_similar" to the most similar of the rows kept BEFORE it, the best-ranked where several are equally similar, with
    that similarity; "unscorable" where the evol score is not finite, or where its turn came and its vector has NaN, infinity or only
    zeros; "below_budget" where its turn never came, whatever its vector, which is not looked at.

    The result does not depend on `block_rows`, `device`, threads or the order of the input. A block of candidates is compared with all
    kept rows, and with itself, by float32 products of a proved error bound (kept.py: of sketches first). A row whose largest product is
    more than the bound below the limit is kept, and one whose largest product is more than that above it is not; what lies between
    them, and which row is the nearest of a rejected one, is decided by the exact similarities of the few pairs in question.

    Memory beside the embeddings: the kept rows in float32 and a quarter more, and 4 bytes for each pair of a row of a block and a
    kept row.
    """

    max_similarity: float = Field(default=0.9, ge=-1, le=1)
    # What may not change the result is no part of the fingerprint.
    block_rows: int = Field(default=256, ge=1, exclude=True)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", exclude=True)

    def select(self, ids: Sequence[str], evol_scores: NDArray[Any], embeddings: NDArray[Any] | None) -> Selection:
        """See Selector.select. Raises UsageError where the ids repeat, or the scores or vectors are missing or of another number."""
        ledger = Ledger(ids, evol_scores)
        vectors = Vectors(embeddings, len(ids))
        budget = min(self.budget, ledger.candidates)
        limit = Limit(self.max_similarity, vectors.dimensions)
        greedy = _Greedy(budget, Kept(vectors.dimensions, budget, limit, screens_on(self.device)), limit)
        for start in range(0, ledger.candidates, self.block_rows):
            if greedy.full:
                break
            ranks = np.arange(start, min(start + self.block_rows, ledger.candidates))
            rows, fit = vectors.read(ledger.order[ranks])
            end = greedy.take(ranks[fit], rows[fit], ledger)
            ledger.give_up(ranks[~fit & (ranks < end)])
        return ledger.selection()


class _Greedy:
    """What has been kept so far, and the decisions about one block of candidates after another."""

    def __init__(self, budget: int, kept: Kept, limit: Limit) -> None:
        self.budget, self.kept, self.limit = budget, kept, limit
        self.kept_ranks = np.empty(0, np.int64)

    @property
    def full(self) -> bool:
        return len(self.kept_ranks) == self.budget

    def take(self, ranks: Indices, rows: Floats, ledger: Ledger) -> float:
        """Decides the b rows of these ranks and enters the decisions; gives the rank after the one that filled the budget, if one did."""
        similarity, nearest = self.kept.nearest(rows)
        open_rows = np.flatnonzero(~(similarity > self.limit.value))
        inner = rows @ rows[open_rows].T
        stays = self._settle(rows, open_rows, inner[open_rows])[: self.budget - len(self.kept_ranks)]
        chosen = open_rows[stays]
        inside, place = self._nearest_inside(rows, chosen, inner[:, stays])
        closer = inside > similarity
        similarity[closer], nearest[closer] = inside[closer], len(self.kept_ranks) + place[closer]
        self.kept.append(rows[chosen])
        self.kept_ranks = np.concatenate((self.kept_ranks, ranks[chosen]))
        decided = chosen[-1] + 1 if self.full else len(rows)
        out = np.setdiff1d(np.arange(decided), chosen, assume_unique=True)
        ledger.keep(ranks[chosen])
        ledger.block(ranks[out], self.kept_ranks[nearest[out]], similarity[out])
        return ranks[decided - 1] + 1 if self.full else np.inf

    def _settle(self, rows: Floats, open_rows: Indices, inner: Floats) -> Indices:
        """Which of the o open rows stay (their places) when each is compared with those before it that stay; `inner`: products (o, o)."""
        stays = np.ones(len(open_rows), bool)
        near = np.tril(inner >= self.limit.surely_below, -1)
        for place in np.flatnonzero(near.any(axis=1)):
            before = np.flatnonzero(near[place] & stays)
            if not before.size:
                continue
            products = inner[place, before]
            if products.max() > self.limit.surely_above:
                stays[place] = False
                continue
            closest = open_rows[before[products >= self.limit.close_to(products.max())]]
            pairs = np.full_like(closest, open_rows[place]), closest
            stays[place] = not (similarities(rows, rows, pairs) > self.limit.value).any()
        return np.flatnonzero(stays)

    def _nearest_inside(self, rows: Floats, chosen: Indices, inner: Floats) -> tuple[Floats, Indices]:
        """As Kept.nearest, among the rows of the block that were `chosen` (k,) and come before the row; `inner`: the products (b, k)."""
        before = np.where(chosen < np.arange(len(rows))[:, None], inner, np.float32(-np.inf))
        top = before.max(axis=1, initial=-np.inf)
        asked = np.flatnonzero(top >= self.limit.surely_below)
        place, index = np.nonzero(before[asked] >= self.limit.close_to(top[asked])[:, None])
        return most_similar(rows, rows[chosen], (asked[place], index))
