"""What a selection is worth beside others: how well it covers the pool, how much it repeats itself,
what it shares with others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deita_tasks.selecting import load_selector
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.similarity.exact import Floats
from deita_tasks.selecting.similarity.vectors import Vectors

PRODUCTS = 20_000_000  # similarities held at a time: 80 MB
CONTROL = "random"


class Measures(NamedTuple):
    """A selection beside the pool; NaN where there is nothing to measure. Distances are 1 - cosine
    similarity, from 0 to 2.

    coverage_mean, coverage_worst: over rows of the pool, the mean distance to the nearest kept row,
    and the largest. redundancy: mean similarity of a kept row to its nearest other kept row.
    """

    kept: int
    mean_evol_score: float
    coverage_mean: float
    coverage_worst: float
    redundancy: float


class Setting(NamedTuple):
    """A strategy, with its limit if it has one."""

    strategy: str
    max_similarity: float | None = None

    def selector(self, budget: int, seed: int, device: str = "auto") -> Selector:
        """The strategy with the options that it has."""
        options: dict[str, Any] = {"seed": seed} if self.strategy == CONTROL else {}
        if self.max_similarity is not None:
            options |= {"max_similarity": self.max_similarity, "device": device}
        return load_selector(self.strategy, budget=budget, **options)


class Cell(NamedTuple):
    """One selection of a sweep, and a random one of as many rows. `kept`: int64, positions in the
    order chosen.
    """

    setting: Setting
    budget: int
    kept: NDArray[np.int64]
    measures: Measures
    control: Measures


def settings(strategies: Sequence[str], similarities: Sequence[float]) -> list[Setting]:
    """Every strategy, diverse with every limit; the control last."""
    limits = {"diverse": similarities}
    named = [
        Setting(name, limit)
        for name in strategies
        if name != CONTROL
        for limit in limits.get(name, [None])
    ]
    return [*named, Setting(CONTROL)]


def sweep(
    ids: Sequence[str],
    ranking: Callable[[Selector], NDArray[np.float64]],
    embeddings: NDArray[Any],
    budgets: Sequence[int],
    compared: Sequence[Setting],
    sample: NDArray[np.int64],
    seed: int = 0,
    device: str = "auto",
) -> Iterator[Cell]:
    """A selection for each setting and each of the ascending `budgets`, measured.

    `ranking` gives the scores, (n,), that a strategy goes by; the measures go by the control's, the
    evol scores. Budgets nest, so each setting is run once, for the largest. Coverage is measured
    over the rows at the positions `sample`. Held at a time: the vectors of the sample and of one
    selection, float32.
    """
    where = {id: position for position, id in enumerate(ids)}
    judge = Judge(ranking(Setting(CONTROL).selector(budgets[-1], seed)), embeddings, sample)

    def kept_by(setting: Setting) -> NDArray[np.int64]:
        strategy = setting.selector(budgets[-1], seed, device)
        selection = strategy.select(ids, ranking(strategy), embeddings)
        return np.array([where[id] for id in selection.kept], np.int64)

    drawn = kept_by(Setting(CONTROL))
    controls = dict(zip(budgets, judge.measure(drawn, budgets), strict=True))
    for setting in compared:
        kept = drawn if setting.strategy == CONTROL else kept_by(setting)
        found = (
            [controls[budget] for budget in budgets]
            if kept is drawn
            else judge.measure(kept, budgets)
        )
        other = sorted(
            {measures.kept for measures in found} - controls.keys()
        )  # where the pool ran out
        controls |= dict(zip(other, judge.measure(drawn, other), strict=True))
        for budget, measures in zip(budgets, found, strict=True):
            yield Cell(setting, budget, kept[:budget], measures, controls[measures.kept])


class Judge:
    """Measures selections from one pool. `sample`: positions of the rows over which coverage is
    measured.
    """

    def __init__(
        self, evol_scores: NDArray[np.float64], embeddings: NDArray[Any], sample: NDArray[np.int64]
    ) -> None:
        self._scores = evol_scores
        self._vectors = Vectors(embeddings, len(evol_scores))
        points, fit = self._vectors.read(sample)
        self._points = points[fit]

    def measure(self, kept: NDArray[np.int64], budgets: Sequence[int]) -> list[Measures]:
        """Measures of the first `budget` of the rows `kept`, for each of the ascending `budgets`,
        in one pass for all of them.
        """
        if not budgets:
            return []
        rows, fit = self._vectors.read(kept[: budgets[-1]])
        sizes = [
            int(fit[:budget].sum()) for budget in budgets
        ]  # a row without a usable vector covers nothing
        rows = rows[fit]
        covered = [_Summary() for _ in sizes]
        for near in nearest(self._points, rows, sizes):
            for summary, column in zip(covered, near.T, strict=True):
                summary.add(1 - column)
        alike = [_Summary() for _ in sizes]
        for start, near in _with_starts(nearest(rows, rows, sizes, others=True)):
            for summary, column, size in zip(alike, near.T, sizes, strict=True):
                summary.add(column[: max(0, size - start)])
        return [
            Measures(
                kept=min(budget, len(kept)),
                mean_evol_score=float(self._scores[kept[:budget]].mean())
                if len(kept)
                else float("nan"),
                coverage_mean=cover.mean,
                coverage_worst=cover.largest,
                redundancy=like.mean,
            )
            for budget, cover, like in zip(budgets, covered, alike, strict=True)
        ]


class _Summary:
    """Mean and largest of numbers that come in pieces; NaN for none, and for those that are not
    finite: nothing to compare with.
    """

    def __init__(self) -> None:
        self._sum, self._count, self._largest = 0.0, 0, -np.inf

    def add(self, values: NDArray[np.float64]) -> None:
        self._sum += float(values.sum())
        self._count += len(values)
        self._largest = max(self._largest, float(values.max(initial=-np.inf)))

    @property
    def mean(self) -> float:
        return self._sum / self._count if self._count and np.isfinite(self._sum) else float("nan")

    @property
    def largest(self) -> float:
        return self._largest if np.isfinite(self._largest) else float("nan")


def nearest(
    points: Floats, rows: Floats, sizes: Sequence[int], others: bool = False
) -> Iterator[NDArray[np.float64]]:
    """For some `points` (m, d) at a time, the largest cosine similarity to the first `size` of
    `rows` (k, d), for each ascending size.

    Normalised rows; gives float64 (b, sizes), -inf where there is no row. `others`: point i is row
    i, which is not compared with itself.
    """
    step = max(1, PRODUCTS // max(1, len(rows)))
    for start in range(0, len(points), step):
        products = points[start : start + step] @ rows.T
        np.clip(products, -1, 1, out=products)
        if others:
            own = np.arange(len(products))
            products[own, start + own] = -np.inf
        pieces = [
            products[:, low:high].max(axis=1, initial=-np.inf)
            for low, high in zip([0, *sizes], sizes, strict=False)
        ]
        yield np.maximum.accumulate(np.column_stack(pieces), axis=1).astype(np.float64)


def _with_starts(
    blocks: Iterator[NDArray[np.float64]],
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    start = 0
    for block in blocks:
        yield start, block
        start += len(block)


def jaccard(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Rows in both selections over rows in either; 1 for two empty ones. Each has no row twice."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    either = len(one) + len(other) - both
    return both / either if either else 1.0
