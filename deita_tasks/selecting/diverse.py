"""The paper's selection: the best evol score first, unless too similar to a row already kept.

Paper section 2.5, Algorithm 1, "Repr Filter".
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from deita_tasks.presets import COSINE_MAX, COSINE_MIN, DEFAULT_MAX_SIMILARITY
from deita_tasks.records import SelectorResult
from deita_tasks.selecting.arrays import Array, Indices
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.ranked_pool import RankedPool
from deita_tasks.selecting.similarity.cosine import CosineKeptRows
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.similarity.limit import KeptRows
from deita_tasks.selecting.similarity.other_metrics import MetricKeptRows
from deita_tasks.selecting.similarity.products import block_product_for
from deita_tasks.selecting.strata import Strata


class Diverse(Selector):
    """The sequential greedy rule, exactly, at the speed of the matrix products it needs.

    Candidates come by (-evol_score, id). A row is kept if its similarity to no row kept before it
    exceeds `max_similarity` (equal is allowed); the selection ends when `budget` rows are kept. By
    default the similarity is the cosine, as the float32 number that similarity/exact.py defines,
    and the limit is `max_similarity` rounded to float32. At a limit of 1, a copy may still be
    rejected, since its similarity may be 1 + 2**-23; `top_score` is the strategy without a limit.

    Rejected rows: "too_similar", with the most similar of the rows kept BEFORE it (the best-ranked
    of several equally similar ones) and that similarity; "unscorable" if the evol score is not
    finite, or if its turn came and its vector has NaN, infinity or only zeros; "below_budget" if
    its turn never came; "stratum_full" if its stratum was full. The vector of such a row is not
    checked.

    The result does not depend on `block_rows`, `device`, threads or the order of the input. A block
    of candidates is compared with all kept rows, and with itself, by float32 products of a proved
    error bound (similarity/cosine.py; first by products of sketches). A row whose largest product
    is below the limit by more than the bound is kept, and one above it by more than the bound is
    not. Exact similarities decide the few pairs in between, and which row is nearest to a rejected
    one.

    `metric`: "cosine"; "dot", of the vectors as they are, with a `max_similarity` in their scale;
    "euclidean" or "manhattan", with a `min_distance`. A row is then kept if no row kept before it
    is closer than that, and its Rejection holds the distance as its similarity. These three
    (similarity/other_metrics.py) are as exact, but several times slower.

    Memory beside the embeddings: the kept rows in float32, a quarter more for their sketches, and 4
    bytes for each pair of a row of a block and a kept row.
    """

    stops_at_budget: ClassVar[bool] = True

    metric: Literal["cosine", "dot", "euclidean", "manhattan"] = "cosine"
    # The default, for cosine alone, is DEFAULT_MAX_SIMILARITY.
    max_similarity: float | None = Field(default=None, allow_inf_nan=False)
    min_distance: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    # Options that cannot change the result are not part of the fingerprint.
    block_rows: int = Field(default=256, ge=1, exclude=True)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _set_default_limit(cls, options: Any) -> Any:
        """Return the options, with the default limit if the metric is cosine.

        Other metrics have none: their scale is that of the embedding model.
        """
        by_cosine = isinstance(options, dict) and options.get("metric", "cosine") == "cosine"
        if not by_cosine:
            return options
        return {"max_similarity": DEFAULT_MAX_SIMILARITY, **options}

    @model_validator(mode="after")
    def _check_limit(self) -> Diverse:
        """Return the strategy unchanged. Raises ValueError for another limit than the metric's.

        Euclidean and manhattan take a least distance, cosine and dot a largest similarity.
        """
        limits = {"max_similarity": self.max_similarity, "min_distance": self.min_distance}
        by_distance = self.metric in ("euclidean", "manhattan")
        takes = "min_distance" if by_distance else "max_similarity"
        given_limits = [name for name, limit in limits.items() if limit is not None]
        if given_limits != [takes]:
            arrived = " and ".join(f"{name} = {limit}" for name, limit in limits.items())
            raise ValueError(f"{arrived}: the metric {self.metric!r} takes {takes} alone")
        if self.metric == "cosine" and not COSINE_MIN <= (self.max_similarity or 0) <= COSINE_MAX:
            raise ValueError(
                f"max_similarity = {self.max_similarity}: expected a cosine, between "
                f"{COSINE_MIN:g} and {COSINE_MAX:g}"
            )
        return self

    @model_validator(mode="after")
    def _check_device(self) -> Diverse:
        """Return the strategy unchanged. Raises UsageError for a GPU that is not there.

        Found here, and not after all scores have been computed.
        """
        if self.device.startswith("cuda"):
            block_product_for(self.device)
        return self

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
        candidates = pool.candidate_count
        budget = min(self.budget, candidates)
        kept_rows = self.new_kept_rows(reader, budget)
        greedy = _BlockwiseGreedy(pool, kept_rows, budget)
        start = 0
        while start < candidates and kept_rows.count < budget:
            end = min(start + self.block_rows, candidates)
            start = greedy.decide_ranks(start, end)
        return pool.result()

    def new_kept_rows(self, reader: EmbeddingReader, max_rows: int) -> KeptRows:
        """Return the empty KeptRows of this metric and limit."""
        if self.metric == "cosine":
            assert self.max_similarity is not None
            new_product = block_product_for(self.device)
            return CosineKeptRows(reader, max_rows, self.max_similarity, new_product)
        if self.metric == "dot":
            assert self.max_similarity is not None
            return MetricKeptRows(reader, max_rows, self.metric, self.max_similarity)
        assert self.min_distance is not None
        return MetricKeptRows(reader, max_rows, self.metric, -self.min_distance)


class _BlockwiseGreedy:
    """The greedy rule, applied to one block of ranks after another."""

    def __init__(self, pool: RankedPool, kept_rows: KeptRows, budget: int) -> None:
        self._pool = pool
        self._kept_rows = kept_rows
        self._budget = budget
        self._kept_ranks = np.empty(0, np.int64)

    def decide_ranks(self, start: int, end: int) -> int:
        """Decide the ranks from `start` to `end`, or to where the budget or a stratum is full.

        Returns the next rank to decide.
        """
        ranks = np.arange(start, end)
        ranks = ranks[self._pool.has_room(ranks)]
        rows, comparable = self._kept_rows.read(self._pool.order[ranks])
        candidates, rows = ranks[comparable], rows[comparable]
        kept, closeness, nearest = self._kept_rows.decide(rows)
        fitting = self._pool.count_fitting(candidates[kept])
        if fitting < len(kept):
            end = int(candidates[kept[fitting]])
            kept = kept[:fitting]
        stop = self._first_full(candidates[kept])
        if stop is not None:
            kept = kept[: stop + 1]
            end = int(candidates[kept[-1]]) + 1
        newly_kept = candidates[kept]
        self._kept_rows.append(rows[kept])
        self._kept_ranks = np.concatenate((self._kept_ranks, newly_kept))
        self._pool.keep(newly_kept)

        decided = np.flatnonzero(candidates < end)
        rejected = np.setdiff1d(decided, kept, assume_unique=True)
        similarities = self._kept_rows.sign * closeness[rejected]
        similarities = similarities + np.float32(0)  # no negative zeros
        nearest_ranks = self._kept_ranks[nearest[rejected]]
        self._pool.reject_too_similar(candidates[rejected], nearest_ranks, similarities)
        self._pool.reject_unscorable(ranks[~comparable & (ranks < end)])
        return end

    def _first_full(self, ranks: Indices) -> int | None:
        """Return the index of the first of `ranks` that fills the budget or its stratum, if any."""
        count = self._kept_rows.count + np.arange(1, len(ranks) + 1)
        fills_stratum = self._pool.fill_stratum(ranks)
        fills_budget = count == self._budget
        full = fills_stratum | fills_budget
        return int(full.argmax()) if full.any() else None
