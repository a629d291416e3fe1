"""The best rows by their score alone: the paper's ranking without its Repr Filter, and its simpler
baselines.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from deita_tasks.records import SelectorResult
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.ledger import Ledger
from deita_tasks.selecting.similarity.exact import Indices


class TopScore(Selector):
    """The first `budget` rows by (-evol_score, id)."""

    needs_embeddings: ClassVar[bool] = False

    def select(
        self,
        ids: Sequence[str],
        evol_scores: NDArray[Any],
        embeddings: NDArray[Any] | None = None,
        strata: Sequence[Hashable] | None = None,
    ) -> SelectorResult:
        """See Selector.select. `embeddings` are not read."""
        ledger = self.ledger(ids, evol_scores, strata)
        ranks = self.in_order(ledger)
        ledger.keep(ranks[ledger.room_after(ranks) >= 0][: self.budget])
        return ledger.selection()

    def in_order(self, ledger: Ledger) -> Indices:
        """The ranks of all candidates in the order in which they are taken."""
        return np.arange(ledger.candidates)


class ComplexityOnly(TopScore):
    """TopScore by complexity (paper, table 2). With the filter: diverse with ranking="complexity"."""

    ranking: Literal["complexity"] = "complexity"


class QualityOnly(TopScore):
    """TopScore by quality (paper, table 3). With the filter: diverse with ranking="quality"."""

    ranking: Literal["quality"] = "quality"


class Length(TopScore):
    """TopScore by length: the longest rows (paper, tables 2 and 3). With the filter: diverse with
    ranking="length".
    """

    ranking: Literal["length"] = "length"
