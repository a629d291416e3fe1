"""The limit that yields a wanted number of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deita_tasks.selecting.ledger import Ledger
from deita_tasks.selecting.similarity.cosine import CosineSpace
from deita_tasks.selecting.similarity.exact import Floats
from deita_tasks.selecting.similarity.products import screens_on
from deita_tasks.selecting.similarity.vectors import Vectors

BLOCK = 256  # rows that are compared at once, as in `diverse`
AHEAD = 4096  # rows among which they are looked for


class Solution(NamedTuple):
    """`max_similarity` yields `kept` rows: the budget, or fewer where even a limit of 1 yields
    fewer.
    """

    max_similarity: float
    kept: int


def solve(
    ids: Sequence[str],
    evol_scores: NDArray[Any],
    embeddings: NDArray[Any],
    budget: int,
    device: str = "auto",
) -> Solution:
    """The smallest (most diverse) limit of `diverse` that still yields `budget` rows, as a float32
    in its shortest decimal form.

    A smaller limit keeps fewer rows, but not always: a row that is shut out lets in what it alone
    had blocked. So what is found is a limit at which the count crosses the budget: it yields the
    budget, and the next smaller float32 does not. Other crossings may lie near; of the limits that
    were tried, all above it yield the budget and none below it does.

    A trial that falls short says more than its limit: no decision changes before the limit reaches
    the smallest of the similarities that shut rows out. So only such similarities are tried, and
    the search is over when none is left below the limit that yields the budget.
    """
    trials = _Trials(ids, evol_scores, embeddings, budget, device)
    high = trials.run(np.float32(1), to_the_end=True)
    if high.kept < budget:
        return Solution(1.0, high.kept)
    low = trials.run(np.float32(-1))
    if low.kept == budget:
        return Solution(-1.0, budget)
    before, last = high, low
    while len(limits := low.shut_out[low.shut_out < high.limit]):
        before, last = (
            last,
            trials.run(limits[np.searchsorted(limits[:-1], _about(low, high, before, last))]),
        )
        if last.kept == budget:
            high = last
        else:
            low = last
    return Solution(float(str(high.limit)), budget)


class _Trial(NamedTuple):
    """What the rule does at `limit`, until it has kept the budget or can no longer.

    surplus: log of about how many times the budget the whole pool would yield; negative where it
    does not yield it. shut_out: ascending, a similarity above the limit for each row that was shut
    out; below the first of them no decision changes.
    """

    limit: np.float32
    kept: int
    surplus: float
    shut_out: Floats


def _about(low: _Trial, high: _Trial, before: _Trial, last: _Trial) -> float:
    """Where the budget may be met: on the line between the ends, or, where two trials moved the
    same end, beyond: to move the other.
    """
    if np.sign(before.surplus) != np.sign(last.surplus):
        return float(
            low.limit + (high.limit - low.limit) * low.surplus / (low.surplus - high.surplus)
        )
    moved = float(last.limit - before.limit)
    slope = (last.surplus - before.surplus) / moved
    beyond = float(last.limit) + (-2 * last.surplus / slope if slope > 0 else 3 * moved)
    return beyond if low.limit < beyond < high.limit else float(low.limit + high.limit) / 2


class _Trials:
    """The rule of `diverse` at one limit after another, for the count alone.

    Of each row that a trial shuts out it remembers the kept row that did it, and how similar they
    are. Where the next trial keeps that row too, and they are above its limit, there is nothing to
    compare: the nearer the limits come, the less is left to do.
    """

    def __init__(
        self,
        ids: Sequence[str],
        evol_scores: NDArray[Any],
        embeddings: NDArray[Any],
        budget: int,
        device: str,
    ) -> None:
        ledger = Ledger(ids, evol_scores)
        self._order = ledger.order[: ledger.candidates]
        self._vectors, self._screen, self._budget = (
            Vectors(embeddings, len(ids)),
            screens_on(device),
            budget,
        )
        self._able = np.ones(ledger.candidates, bool)
        self._blocker = np.zeros(ledger.candidates, np.int64)
        self._similarity = np.full(ledger.candidates, -np.inf, np.float32)

    def run(self, limit: np.float32, to_the_end: bool = False) -> _Trial:
        """`to_the_end`: count also where the budget is out of reach."""
        rows = len(self._order)
        space = CosineSpace(self._vectors, min(self._budget, rows), float(limit), self._screen)
        kept, start = np.zeros(rows, bool), 0
        while (
            start < rows
            and space.kept < self._budget
            and (to_the_end or space.kept + rows - start >= self._budget)
        ):
            start = self._take(space, kept, start)
        shut_out = np.unique(self._similarity[:start][self._able[:start] & ~kept[:start]])
        return _Trial(limit, space.kept, self._surplus(kept, start), shut_out)

    def _take(self, space: CosineSpace, kept: NDArray[np.bool_], start: int) -> int:
        """Decides the next BLOCK of the rows that have to be compared, and those between them;
        gives the rank that is next.
        """
        ahead = np.arange(start, min(start + AHEAD, len(self._order)))
        known = kept[self._blocker[ahead]] & (self._similarity[ahead] > space.limit)
        ranks = ahead[self._able[ahead] & ~known]
        end = int(ahead[-1]) + 1 if len(ranks) <= BLOCK else int(ranks[BLOCK])
        rows, fit = self._vectors.read(self._order[ranks[:BLOCK]])
        self._able[ranks[:BLOCK][~fit]] = False
        ranks, rows = ranks[:BLOCK][fit], rows[fit]
        chosen, closest, nearest = space.decide(rows)
        chosen = chosen[: self._budget - space.kept]
        space.append(rows[chosen])
        kept[ranks[chosen]] = True
        if space.kept == self._budget:
            end = int(ranks[chosen[-1]]) + 1
        out = np.setdiff1d(np.flatnonzero(ranks < end), chosen, assume_unique=True)
        self._blocker[ranks[out]], self._similarity[ranks[out]] = (
            np.flatnonzero(kept)[nearest[out]],
            closest[out],
        )
        return end

    def _surplus(self, kept: NDArray[np.bool_], reached: int) -> float:
        """As in `_Trial`: the count goes on growing as it did over the second half of the rows
        reached, by a power of their number.
        """
        total, half = int(kept.sum()), max(1, int(kept[: reached // 2].sum()))
        if not total:
            return -math.inf
        grown = total * (len(kept) / reached) ** math.log2(total / half)
        return math.log(min(grown, total + len(kept) - reached) / self._budget)
