"""What every selection strategy is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray
from pydantic import Field

from deita_tasks.components import Component, Fingerprint
from deita_tasks.records import SelectorResult
from deita_tasks.selecting.evol import How, Ranking
from deita_tasks.selecting.ledger import Ledger


class Selector(Component):
    """Chooses at most `budget` rows. Its fields are its options.

    Three of them say what its caller has to hand over: `ranking` and `evol_score`, which scores
    (evol.ranking_scores makes them), and `strata`, the values of which column, where no more than
    `per_stratum` rows of each are to be kept.
    """

    needs_embeddings: ClassVar[bool] = True

    budget: int = Field(ge=1)
    ranking: Ranking = "evol"
    evol_score: How = "sum"
    strata: str | None = None
    per_stratum: int | None = Field(default=None, ge=1)

    @abstractmethod
    def select(
        self,
        ids: Sequence[str],
        evol_scores: NDArray[Any],
        embeddings: NDArray[Any] | None,
        strata: Sequence[Hashable] | None = None,
    ) -> SelectorResult:
        """`ids`: n distinct ids, in any order. `evol_scores`: (n,), NaN for none; of whichever
        `ranking` is. `embeddings`: (n, d) of float32 or float16, row i is ids[i], not normalised,
        may be a memory map; None where `needs_embeddings` is False. `strata`: (n,), the stratum of
        each row, where there is a `per_stratum`: a row whose stratum has its number is passed over,
        as below_budget.

        Raises UsageError where the ids repeat, or scores, vectors or strata are missing or of
        another number.
        """

    def ledger(
        self, ids: Sequence[str], evol_scores: NDArray[Any], strata: Sequence[Hashable] | None
    ) -> Ledger:
        """The pool in the order of its scores, with nothing decided yet."""
        return Ledger(ids, evol_scores, strata, self.per_stratum)

    def fingerprint(self) -> Fingerprint:
        """The strategy and every option that changes what is kept."""
        return {"strategy": type(self).__name__, **self.model_dump()}
