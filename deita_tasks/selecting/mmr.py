"""Score against similarity, by a weight (maximal marginal relevance)."""

from __future__ import annotations

from pydantic import Field

from deita_tasks.selecting.marginal import Marginal


class MMR(Marginal):
    """Next is the row of the largest weight * score - (1 - weight) * similarity (Carbonell and
    Goldstein 1998), as Marginal says.

    A `weight` of 1 is top_score; one of 0 is k_center.
    """

    weight: float = Field(default=0.5, ge=0, le=1)

    def share(self) -> float:
        return self.weight
