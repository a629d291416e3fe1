"""The paper's selection (section 2.5, Algorithm 1, "Repr Filter"): best evol score first, unless
too similar to a row kept already.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from deita_tasks.records import SelectorResult
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.ledger import Ledger
from deita_tasks.selecting.similarity.cosine import CosineSpace
from deita_tasks.selecting.similarity.other_metrics import MetricSpace
from deita_tasks.selecting.similarity.products import screens_on
from deita_tasks.selecting.similarity.space import Space
from deita_tasks.selecting.similarity.vectors import Vectors


class Diverse(Selector):
    """Exactly the sequential greedy rule, at the speed of the matrix products that it has to do.

    Rows are taken by (-evol_score, id). A row is kept when its largest similarity to any row kept
    before it is not above `max_similarity` (equal is allowed); the selection ends when `budget`
    rows are kept. The similarity of two rows, cosine, is the float32 number that
    selecting/similarity.py defines, and the limit is `max_similarity` rounded to float32. (At a
    limit of 1 a copy may still be rejected, as its similarity may be 1 + 2**-23; `top_score` is the
    strategy without a limit.)

    Rejected rows: "too_similar" to the most similar of the rows kept BEFORE it, the best-ranked
    where several are equally similar, with that similarity; "unscorable" where the evol score is
    not finite, or where its turn came and its vector has NaN, infinity or only zeros;
    "below_budget" where its turn never came, or its stratum was full, whatever its vector, which is
    not looked at.

    The result does not depend on `block_rows`, `device`, threads or the order of the input. A block
    of candidates is compared with all kept rows, and with itself, by float32 products of a proved
    error bound (cosine.py: of sketches first). A row whose largest product is more than the bound
    below the limit is kept, and one whose largest product is more than that above it is not; what
    lies between them, and which row is the nearest of a rejected one, is decided by the exact
    similarities of the few pairs in question.

    `metric`: "cosine"; "dot", of the vectors as they are, with a `max_similarity` in their scale;
    "euclidean" or "manhattan", with a `min_distance`: a row is kept when none kept before is nearer
    than that, and the distance is what its Rejection has for a similarity. These three (metrics.py)
    are as exact, but several times slower.

    Memory beside the embeddings: the kept rows in float32 and a quarter more, and 4 bytes for each
    pair of a row of a block and a kept row.
    """

    metric: Literal["cosine", "dot", "euclidean", "manhattan"] = "cosine"
    max_similarity: float | None = Field(default=None, allow_inf_nan=False)  # for cosine, 0.9
    min_distance: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    # What may not change the result is no part of the fingerprint.
    block_rows: int = Field(default=256, ge=1, exclude=True)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _default_limit(cls, options: Any) -> Any:
        by_cosine = isinstance(options, dict) and options.get("metric", "cosine") == "cosine"
        return {"max_similarity": 0.9, **options} if by_cosine else options

    @model_validator(mode="after")
    def _one_limit_of_the_metric(self) -> Diverse:
        wanted, other = "max_similarity", "min_distance"
        if self.metric in ("euclidean", "manhattan"):
            wanted, other = other, wanted
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            given = f"max_similarity = {self.max_similarity} and min_distance = {self.min_distance}"
            raise ValueError(f"{given}: the metric {self.metric!r} takes {wanted} alone")
        if self.metric == "cosine" and not -1 <= (self.max_similarity or 0) <= 1:
            raise ValueError(
                f"max_similarity = {self.max_similarity}: expected a cosine, between -1 and 1"
            )
        return self

    @model_validator(mode="after")
    def _device_is_there(self) -> Diverse:
        if self.device.startswith("cuda"):
            screens_on(self.device)
        return self

    def select(
        self,
        ids: Sequence[str],
        evol_scores: NDArray[Any],
        embeddings: NDArray[Any] | None,
        strata: Sequence[Hashable] | None = None,
    ) -> SelectorResult:
        """See Selector.select."""
        ledger = self.ledger(ids, evol_scores, strata)
        budget = min(self.budget, ledger.candidates)
        greedy = _Greedy(budget, self._space(Vectors(embeddings, len(ids)), budget), ledger)
        start = 0
        while start < ledger.candidates and greedy.space.kept < budget:
            start = greedy.take(start, min(start + self.block_rows, ledger.candidates))
        return ledger.selection()

    def _space(self, vectors: Vectors, most: int) -> Space:
        if self.min_distance is not None:
            return MetricSpace(vectors, most, self.metric, -self.min_distance)
        assert self.max_similarity is not None
        if self.metric == "cosine":
            return CosineSpace(vectors, most, self.max_similarity, screens_on(self.device))
        return MetricSpace(vectors, most, self.metric, self.max_similarity)


class _Greedy:
    """What has been kept so far, and the ledger, through one block of candidates after another."""

    def __init__(self, budget: int, space: Space, ledger: Ledger) -> None:
        self.budget, self.space, self.ledger = budget, space, ledger
        self.kept_ranks = np.empty(0, np.int64)

    def take(self, start: int, end: int) -> int:
        """Decides the ranks from `start` on, up to `end` or to where the budget or a stratum is
        full; gives the rank that is next.
        """
        ranks = np.arange(start, end)
        ranks = ranks[self.ledger.has_room(ranks)]
        rows, fit = self.space.read(self.ledger.order[ranks])
        able, rows = ranks[fit], rows[fit]
        chosen, closest, nearest = self.space.decide(rows)
        full = (self.ledger.room_after(able[chosen]) == 0) | (
            self.space.kept + np.arange(1, len(chosen) + 1) == self.budget
        )
        if full.any():
            chosen = chosen[: full.argmax() + 1]
            end = able[chosen[-1]] + 1
        self.space.append(rows[chosen])
        self.kept_ranks = np.concatenate((self.kept_ranks, able[chosen]))
        out = np.setdiff1d(np.flatnonzero(able < end), chosen, assume_unique=True)
        self.ledger.keep(able[chosen])
        reported = self.space.sign * closest[out] + np.float32(0)  # no negative zeros
        self.ledger.block(able[out], self.kept_ranks[nearest[out]], reported)
        self.ledger.give_up(ranks[~fit & (ranks < end)])
        return end
