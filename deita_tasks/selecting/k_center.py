"""k-center greedy: leaves as little of the pool as possible far from all kept rows."""

from __future__ import annotations

from deita_tasks.selecting.marginal import MarginalRelevance


class KCenter(MarginalRelevance):
    """The best row by evol score, then always the row least similar to all kept ones.

    This is the farthest-first traversal of Gonzalez (1985): no other choice of as many rows covers
    the pool within less than half of its angle. Scores matter for the first row only, and outliers
    are picked early.
    """

    def relevance_weight(self) -> float:
        """Return 0: only the distance to the picks counts, and scores settle ties."""
        return 0.0
