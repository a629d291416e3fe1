"""Farthest point first: the rows that leave the least of the pool far from all of them."""

from __future__ import annotations

from deita_tasks.selecting.marginal import Marginal


class KCenter(Marginal):
    """The best row by evol score, then always the row that is least similar to all kept ones
    (Gonzalez 1985, greedy k-center).

    So many rows cannot cover the pool within less than half of the angle within which these do. It
    pays no heed to scores after the first row, and likes outliers.
    """

    def share(self) -> float:
        return 0.0
