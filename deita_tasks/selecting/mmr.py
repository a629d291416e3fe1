"""Maximal marginal relevance: a weighted trade-off between score and similarity."""

from __future__ import annotations

from pydantic import Field

from deita_tasks.presets import MMR_WEIGHT
from deita_tasks.selecting.marginal import MarginalRelevance


class MMR(MarginalRelevance):
    """Always the row with the largest weight * score - (1 - weight) * similarity.

    Carbonell and Goldstein (1998); MarginalRelevance defines both terms. A `weight` of 1 is
    top_score, a weight of 0 is k_center.
    """

    weight: float = Field(default=MMR_WEIGHT, ge=0, le=1)

    def relevance_weight(self) -> float:
        """Return the weight of the options: 1 ranks by score alone, 0 by dissimilarity alone."""
        return self.weight
