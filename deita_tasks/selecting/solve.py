"""The search for the similarity limit that yields a given number of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deita_tasks.presets import COSINE_MAX, COSINE_MIN
from deita_tasks.selecting.arrays import Array, Floats, Indices, Mask
from deita_tasks.selecting.ranked_pool import RankedPool
from deita_tasks.selecting.similarity.cosine import CosineKeptRows
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.similarity.products import block_product_for

BLOCK_ROWS = 256  # rows compared at once, as in `diverse`
LOOK_AHEAD_ROWS = 4096  # rows among which the next block is looked for


class Solution(NamedTuple):
    """`max_similarity` yields `kept` rows: the budget, or fewer if even a limit of 1 does."""

    max_similarity: float
    kept: int


def solve(
    ids: Sequence[str], evol_scores: Array, embeddings: Array, budget: int, device: str = "auto"
) -> Solution:
    """Return the smallest (most diverse) limit of `diverse` that still yields `budget` rows.

    The limit is a float32, in its shortest decimal form.

    A smaller limit usually keeps fewer rows, but not always: dropping a row can let in rows that it
    alone had blocked. So the result is a limit at which the count crosses the budget: it yields the
    budget, and the next smaller float32 does not. There may be other crossings nearby. Of the
    limits that were tried, all above it yield the budget and none below it does.

    A trial that falls short tells more than its own count: no decision changes until the limit
    reaches the smallest similarity that blocked a row. So only such similarities are tried, and the
    search ends when none is left below the limit that yields the budget.
    """
    trials = _TrialRunner(ids, evol_scores, embeddings, budget, device)
    high = trials.run(np.float32(COSINE_MAX), count_all=True)
    if high.kept < budget:
        return Solution(COSINE_MAX, high.kept)
    low = trials.run(np.float32(COSINE_MIN))
    if low.kept == budget:
        return Solution(COSINE_MIN, budget)
    previous, last = high, low
    limits = _limits_between(low, high)
    while len(limits):
        guess = _guess_limit(low, high, previous, last)
        index = np.searchsorted(limits[:-1], guess)
        previous, last = last, trials.run(limits[index])
        if last.kept == budget:
            high = last
        else:
            low = last
        limits = _limits_between(low, high)
    return Solution(float(str(high.limit)), budget)


class _Trial(NamedTuple):
    """What the rule does at `limit`, until it has kept the budget or no longer can.

    surplus: the log of about how many times the budget the whole pool would yield; negative if it
    does not yield it. blocking: ascending; for each blocked row, a similarity above the limit.
    Below the first of them no decision changes.
    """

    limit: np.float32
    kept: int
    surplus: float
    blocking: Floats


def _limits_between(low: _Trial, high: _Trial) -> Floats:
    """Return the limits left to try: those at which a decision of `low` changes, below `high`."""
    below_high = low.blocking < high.limit
    return low.blocking[below_high]


def _guess_limit(low: _Trial, high: _Trial, previous: _Trial, last: _Trial) -> float:
    """Return a limit near which the budget may be met, between `low` and `high`.

    Regula falsi: the limit lies on the line between the two ends. If the last two trials moved the
    same end, it extrapolates twice as far, to move the other end; failing that, it bisects.
    """
    moved_other_end = np.sign(previous.surplus) != np.sign(last.surplus)
    if moved_other_end:
        scaled_surplus = (high.limit - low.limit) * low.surplus
        return float(low.limit + scaled_surplus / (low.surplus - high.surplus))
    start = float(last.limit)
    step = float(last.limit - previous.limit)
    slope = (last.surplus - previous.surplus) / step
    extrapolated = -2 * last.surplus / slope if slope > 0 else 3 * step
    beyond = start + extrapolated
    if low.limit < beyond < high.limit:
        return beyond
    return float(low.limit + high.limit) / 2


class _TrialRunner:
    """Applies the rule of `diverse` with one limit after another, to count the kept rows.

    For each blocked row it remembers which kept row blocked it, and their similarity. If the next
    trial keeps that row too, and the similarity exceeds its limit, nothing needs to be compared.
    The closer the limits get, the less work is left.
    """

    def __init__(
        self, ids: Sequence[str], evol_scores: Array, embeddings: Array, budget: int, device: str
    ) -> None:
        pool = RankedPool(ids, evol_scores)
        count = pool.candidate_count
        self._order = pool.order[:count]
        self._reader = EmbeddingReader(embeddings, len(ids))
        self._new_product = block_product_for(device)
        self._budget = budget
        # By rank:
        self._comparable = np.ones(count, bool)
        self._blocker = np.zeros(count, np.int64)  # the rank of the blocking row
        self._similarity = np.full(count, -np.inf, np.float32)  # to the blocker

    def run(self, limit: np.float32, count_all: bool = False) -> _Trial:
        """Run one trial. `count_all`: go on even if the budget is out of reach."""
        rows = len(self._order)
        max_rows = min(self._budget, rows)
        kept_rows = CosineKeptRows(self._reader, max_rows, float(limit), self._new_product)
        is_kept = np.zeros(rows, bool)
        start = 0
        while start < rows and kept_rows.count < self._budget:
            in_reach = kept_rows.count + rows - start >= self._budget
            if not (in_reach or count_all):
                break
            start = self._decide_block(kept_rows, is_kept, start)
        blocked = self._comparable[:start] & ~is_kept[:start]
        blocking = np.unique(self._similarity[:start][blocked])
        surplus = self._estimate_surplus(is_kept, start)
        return _Trial(limit, kept_rows.count, surplus, blocking)

    def _decide_block(self, kept_rows: CosineKeptRows, is_kept: Mask, start: int) -> int:
        """Decide the next BLOCK_ROWS rows that have to be compared, and those between them.

        Returns the next rank to decide.
        """
        ranks, end = self._find_block(kept_rows, is_kept, start)
        rows, comparable = self._reader.read(self._order[ranks])
        self._comparable[ranks[~comparable]] = False
        ranks, rows = ranks[comparable], rows[comparable]
        kept, closeness, nearest = kept_rows.decide(rows)
        kept = kept[: self._budget - kept_rows.count]
        kept_rows.append(rows[kept])
        is_kept[ranks[kept]] = True
        if kept_rows.count == self._budget:
            end = int(ranks[kept[-1]]) + 1
        decided = np.flatnonzero(ranks < end)
        blocked = np.setdiff1d(decided, kept, assume_unique=True)
        self._blocker[ranks[blocked]] = np.flatnonzero(is_kept)[nearest[blocked]]
        self._similarity[ranks[blocked]] = closeness[blocked]
        return end

    def _find_block(
        self, kept_rows: CosineKeptRows, is_kept: Mask, start: int
    ) -> tuple[Indices, int]:
        """Return the next ranks that have to be compared, and the rank after the block."""
        ahead_end = min(start + LOOK_AHEAD_ROWS, len(self._order))
        ahead = np.arange(start, ahead_end)
        blocker_is_kept = is_kept[self._blocker[ahead]]
        exceeds_limit = kept_rows.exceeds_limit(self._similarity[ahead])
        still_blocked = blocker_is_kept & exceeds_limit
        ranks = ahead[self._comparable[ahead] & ~still_blocked]
        if len(ranks) <= BLOCK_ROWS:
            return ranks, ahead_end
        return ranks[:BLOCK_ROWS], int(ranks[BLOCK_ROWS])

    def _estimate_surplus(self, is_kept: Mask, reached: int) -> float:
        """Return the surplus of `_Trial`, for a trial that reached this many rows.

        Assumes that the count goes on growing as over the second half of them, by a power of their
        number.
        """
        rows = len(is_kept)
        total = int(is_kept.sum())
        if not total:
            return -math.inf
        half = max(1, int(is_kept[: reached // 2].sum()))
        grown = total * (rows / reached) ** math.log2(total / half)
        most = total + rows - reached
        return math.log(min(grown, most) / self._budget)
