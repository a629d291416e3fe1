"""The paper's selection (section 2.5, Algorithm 1, "Repr Filter"): best evol score first, unless too similar to a row kept already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from deita_tasks.records import Selection
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.ledger import Ledger
from deita_tasks.selecting.screen import Screen, open_screen
from deita_tasks.selecting.similarity import ROUNDING, Vectors, screening_error, similarities

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]


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
    kept rows, and with itself, by float32 products of a proved error bound. A row whose largest product is more than the bound below
    the limit is kept, and one whose largest product is more than that above it is not; between them, and for the nearest row of a
    rejected one, the similarities of all kept rows within twice the bound of the largest product are computed exactly.

    Memory beside the embeddings: the kept rows in float32, and 5 bytes for each pair of a row of a block and a kept row.
    """

    max_similarity: float = Field(default=0.9, ge=-1, le=1)
    # What may not change the result is no part of the fingerprint.
    block_rows: int = Field(default=512, ge=1, exclude=True)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", exclude=True)

    def select(self, ids: Sequence[str], evol_scores: NDArray[Any], embeddings: NDArray[Any] | None) -> Selection:
        """See Selector.select. Raises UsageError where the ids repeat, or the scores or vectors are missing or of another number."""
        ledger = Ledger(ids, evol_scores)
        vectors = Vectors(embeddings, len(ids))
        budget = min(self.budget, ledger.candidates)
        greedy = _Greedy(budget, self.max_similarity, vectors.dimensions, open_screen(vectors.dimensions, budget, self.device))
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

    def __init__(self, budget: int, max_similarity: float, dimensions: int, screen: Screen) -> None:
        self.budget, self.screen = budget, screen
        self.limit = np.float32(max_similarity)
        error = screening_error(dimensions)
        self.surely_below = _down(float(self.limit) - error)
        self.surely_above = -_down(-float(self.limit) - error - ROUNDING)
        self.slack = 2 * error + ROUNDING
        self.kept_ranks = np.empty(0, np.int64)

    @property
    def full(self) -> bool:
        return self.screen.count == self.budget

    def take(self, ranks: Indices, rows: Floats, ledger: Ledger) -> float:
        """Decides the b rows of these ranks and enters the decisions; gives the rank after the one that filled the budget, if one did."""
        top = self.screen.compare(rows)
        open_rows = np.flatnonzero(~self._blocked(rows, top))
        inner = rows @ rows[open_rows].T
        stays = self._settle(rows, open_rows, inner[open_rows])
        stays = stays[: self.budget - self.screen.count]
        chosen = open_rows[stays]
        full = self.screen.count + len(chosen) == self.budget
        decided = chosen[-1] + 1 if full else len(rows)
        out = np.setdiff1d(np.arange(decided), chosen, assume_unique=True)
        inside = np.where(chosen < out[:, None], inner[np.ix_(out, stays)], np.float32(-np.inf))
        self.kept_ranks = np.concatenate((self.kept_ranks, ranks[chosen]))
        nearest, similarity = self._nearest(rows, chosen, out, top[out], inside)
        ledger.keep(ranks[chosen])
        ledger.block(ranks[out], self.kept_ranks[nearest], similarity)
        return ranks[decided - 1] + 1 if full else np.inf

    def _blocked(self, rows: Floats, top: Floats) -> Bools:
        """Which rows (b,) are too similar to one kept before the block; `top` (b,) is the largest product of each with those."""
        blocked: Bools = top > self.surely_above
        unsure = np.flatnonzero((top >= self.surely_below) & ~blocked)
        pairs = self.screen.near(unsure, self._close_to(top[unsure]))
        blocked[pairs[0][similarities(rows, self.screen.kept, pairs) > self.limit]] = True
        return blocked

    def _settle(self, rows: Floats, open_rows: Indices, inner: Floats) -> Indices:
        """Which of the o open rows stay (their places) when each is compared with those before it that stay; `inner`: products (o, o)."""
        stays = np.ones(len(open_rows), bool)
        near = np.tril(inner >= self.surely_below, -1)
        for place in np.flatnonzero(near.any(axis=1)):
            before = np.flatnonzero(near[place] & stays)
            if not before.size:
                continue
            products = inner[place, before]
            if products.max() > self.surely_above:
                stays[place] = False
                continue
            closest = open_rows[before[products >= self._close_to(products.max())]]
            pairs = np.full_like(closest, open_rows[place]), closest
            stays[place] = not (similarities(rows, rows, pairs) > self.limit).any()
        return np.flatnonzero(stays)

    def _nearest(self, rows: Floats, chosen: Indices, out: Indices, top: Floats, inside: Floats) -> tuple[Indices, Floats]:
        """The most similar of the rows kept before each row of `out` (its place among the kept), and that similarity.

        `top`: their largest products with the rows kept before the block. `inside`: their products with the `chosen` rows of the block,
        which join the kept ones here; -inf for those that come later.
        """
        least = self._close_to(np.maximum(top, inside.max(axis=1, initial=-np.inf)))
        row, index = self.screen.near(out, least)
        place, index_inside = np.nonzero(inside >= least[:, None])
        pairs = np.concatenate((row, out[place])), np.concatenate((index, self.screen.count + index_inside))
        self.screen.append(rows[chosen])
        similarity = similarities(rows, self.screen.kept, pairs)
        best_first = np.lexsort((pairs[1], -similarity, pairs[0]))
        _, first = np.unique(pairs[0][best_first], return_index=True)
        return pairs[1][best_first][first], similarity[best_first][first]

    def _close_to(self, top: Floats) -> Floats:
        """The least product that the pair of the largest similarity can have, where `top` is the largest product."""
        least: Floats = _down(top.astype(np.float64) - self.slack)
        return least


def _down(values: Any) -> Any:
    """Float64 values as float32, never larger than they were."""
    return np.nextafter(np.float32(values), np.float32(-np.inf))
