"""The base class of selection strategies."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import ClassVar

from pydantic import Field

from deita_tasks.components import Component, Fingerprint
from deita_tasks.records import SelectorResult
from deita_tasks.selecting.arrays import Array
from deita_tasks.selecting.evol import Ranking, TurnAggregation
from deita_tasks.selecting.ranked_pool import RankedPool


class Selector(Component):
    """Base class of selection strategies.

    A strategy is one class in its own file, and one line in `SELECTORS`:

        class EveryNth(Selector):
            "Every n-th row of the ranking."

            needs_embeddings: ClassVar[bool] = False

            n: int = Field(default=2, ge=1)

            def select(self, ids, evol_scores, embeddings=None, strata=None):
                pool = self.rank_pool(ids, evol_scores, strata)
                ranks = np.arange(0, pool.candidate_count, self.n)
                pool.keep(pool.drop_full_strata(ranks)[: self.budget])
                return pool.result()

    The fields of the class are the options of the strategy; pydantic checks them. Every strategy
    keeps at most `budget` rows and decides every id exactly once. It depends neither on the order
    of the input nor on the machine. A row that cannot be compared is "unscorable"; no score or
    vector is imputed. tests/selecting/test_contract.py checks all of this for every strategy.

    Three options tell the caller what to pass to `select`. `ranking` and `evol_score` name the
    scores, which `evol.ranking_scores` computes. `strata` names the column whose values are the
    strata; at most `per_stratum` rows of each stratum are kept.
    """

    needs_embeddings: ClassVar[bool] = True
    # Whether it takes rows from the best score down and stops: then it looks at no row beyond, and
    # those need no scores.
    stops_at_budget: ClassVar[bool] = False

    budget: int = Field(ge=1)
    ranking: Ranking = "evol"
    evol_score: TurnAggregation = "sum"
    strata: str | None = None
    per_stratum: int | None = Field(default=None, ge=1)

    @abstractmethod
    def select(
        self,
        ids: Sequence[str],
        evol_scores: Array,
        embeddings: Array | None,
        strata: Sequence[Hashable] | None = None,
    ) -> SelectorResult:
        """Return the kept ids in the order chosen, and a Rejection for every other id.

        `ids`: n distinct ids, in any order. `evol_scores`: (n,), the scores named by `ranking`; NaN
        for a row without one. `embeddings`: (n, d), float32 or float16; row i belongs to ids[i]. It
        need not be normalised and may be a memory map, or None if `needs_embeddings` is False.
        `strata`: (n,), the stratum of each row; needed only with `per_stratum`. Once a stratum is
        full, its other rows are "below_budget".

        Raises UsageError if ids repeat, or if scores, vectors or strata are missing or differ in
        number from the ids.
        """

    def rank_pool(
        self, ids: Sequence[str], evol_scores: Array, strata: Sequence[Hashable] | None
    ) -> RankedPool:
        """Return the rows in the order of their scores, all of them still undecided."""
        return RankedPool(ids, evol_scores, strata, self.per_stratum)

    def fingerprint(self) -> Fingerprint:
        """Return the strategy and every option that changes which rows are kept."""
        return {"strategy": type(self).__name__, **self.model_dump()}
