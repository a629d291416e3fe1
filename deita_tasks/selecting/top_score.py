"""The best rows by score alone: the paper's ranking without its Repr Filter, and its baselines."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar, Literal

import numpy as np

from deita_tasks.records import SelectorResult
from deita_tasks.selecting.arrays import Array, Indices
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.ranked_pool import RankedPool
from deita_tasks.selecting.strata import Strata


class TopScore(Selector):
    """The first `budget` rows by (-evol_score, id)."""

    needs_embeddings: ClassVar[bool] = False
    stops_at_budget: ClassVar[bool] = True

    def select(
        self,
        ids: Sequence[str],
        evol_scores: Array,
        embeddings: Array | None = None,
        strata: Sequence[Hashable] | Strata | None = None,
    ) -> SelectorResult:
        """See Selector.select. `embeddings` are not read."""
        pool = self.rank_pool(ids, evol_scores, strata)
        ranks = self.order_ranks(pool)
        pool.keep(pool.drop_full_strata(ranks)[: self.budget])
        return pool.result()

    def order_ranks(self, pool: RankedPool) -> Indices:
        """Return the ranks of all candidates in the order in which they are kept."""
        return np.arange(pool.candidate_count)


class ComplexityOnly(TopScore):
    """TopScore by complexity (paper, table 2).

    For the same ranking with the filter, use diverse with ranking="complexity".
    """

    ranking: Literal["complexity"] = "complexity"


class QualityOnly(TopScore):
    """TopScore by quality (paper, table 3).

    For the same ranking with the filter, use diverse with ranking="quality".
    """

    ranking: Literal["quality"] = "quality"


class Length(TopScore):
    """TopScore by length: the longest rows (paper, tables 2 and 3).

    For the same ranking with the filter, use diverse with ranking="length".
    """

    ranking: Literal["length"] = "length"
