"""How far a difference between trained models may be chance.

Models differ by the rows that they were trained on, by the seed of their training, and by the items
that they are measured with. A bootstrap repeats the measurement with other items, drawn from those
at hand (the same for both sides: it is paired), and with other trainings of each side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SAMPLES = 4000
LEVEL = 0.95
BLOCK = 200  # samples computed at a time


class ItemScores(NamedTuple):
    """What r trainings of one side scored on n items.

    values: float64 (r, n). weights: float64 (n,), of the items: their tokens, or 1.
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]

    def by_run(self) -> NDArray[np.float64]:
        """Return the weighted mean over the items for each training: float64 (r,)."""
        return np.asarray(self.values @ self.weights / self.weights.sum())

    def mean(self) -> float:
        """Return the mean over trainings of their weighted means; each training counts alike."""
        return float(self.by_run().mean())


class Interval(NamedTuple):
    """A difference, and the interval that LEVEL of the samples lie in."""

    difference: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def compare(first: ItemScores, second: ItemScores, seed: int = 0) -> Interval:
    """Return the mean of `first` minus that of `second`, with its bootstrap interval.

    Both have the same items, in the same order. Each sample draws the items anew, and the trainings
    of each side. The same seed gives the same interval.
    """
    generator = np.random.default_rng(seed)
    items = len(first.weights)
    differences = []
    for _ in range(0, SAMPLES, BLOCK):
        counts = generator.multinomial(items, np.full(items, 1 / items), size=BLOCK)
        weights = counts * first.weights
        sides = [_sample(side, weights, generator) for side in (first, second)]
        differences.append(sides[0] - sides[1])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(differences), [tail, 1 - tail])
    return Interval(first.mean() - second.mean(), float(low), float(high))


def _sample(
    side: ItemScores, weights: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the mean of trainings drawn anew for each of b samples of the items: float64 (b,)."""
    by_run = weights @ side.values.T / weights.sum(axis=1, keepdims=True)
    runs = len(side.values)
    drawn = generator.integers(runs, size=(len(weights), runs))
    return np.asarray(np.take_along_axis(by_run, drawn, axis=1).mean(axis=1))
