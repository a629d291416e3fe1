"""What a selection is worth beside others: how well it covers the pool, how much it repeats itself, what it shares with others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deita_tasks.selecting import load_selector
from deita_tasks.selecting.similarity import normalised

BLOCK = 2048  # pool rows at a time: 80 MB of similarities to 10,000 kept rows


class Measures(NamedTuple):
    """A selection beside the pool. Distances are 1 - cosine similarity.

    coverage_mean, coverage_worst: over the pool's rows, the distance to the nearest kept row, and the largest of them.
    redundancy: mean similarity of a kept row to its nearest other kept row.
    """

    kept: int
    mean_evol_score: float
    coverage_mean: float
    coverage_worst: float
    redundancy: float


class Cell(NamedTuple):
    """One selection of a sweep: `kept` are positions in the order chosen. `max_similarity` is None for a strategy without a limit."""

    strategy: str
    max_similarity: float | None
    budget: int
    kept: NDArray[np.int64]
    measures: Measures


def sweep(
    ids: Sequence[str],
    evol_scores: NDArray[np.float64],
    embeddings: NDArray[Any],
    budgets: Sequence[int],
    similarities: Sequence[float],
    strategies: Sequence[str],
    sample: NDArray[np.int64],
    seed: int = 0,
) -> Iterator[Cell]:
    """A selection for each strategy, limit and budget, with a random one of each budget as the control.

    Budgets nest, so each strategy and limit is run once, for the largest. Coverage is measured over the rows at the positions `sample`.
    """
    largest = max(budgets)
    where = {id: position for position, id in enumerate(ids)}
    points, fit = normalised(np.asarray(embeddings[sample]))
    points = points[fit]
    for strategy, limit in [*_settings(strategies, similarities), ("random", None)]:
        options: dict[str, Any] = {"budget": largest}
        if limit is not None:
            options["max_similarity"] = limit
        if strategy == "random":
            options["seed"] = seed
        selection = load_selector(strategy, **options).select(ids, evol_scores, embeddings)
        kept = np.array([where[id] for id in selection.kept], np.int64)
        for budget, measures in zip(budgets, measure(kept, budgets, evol_scores, embeddings, points), strict=True):
            yield Cell(strategy, limit, budget, kept[:budget], measures)


def _settings(strategies: Sequence[str], similarities: Sequence[float]) -> Iterator[tuple[str, float | None]]:
    for strategy in strategies:
        if strategy == "diverse":
            yield from ((strategy, limit) for limit in similarities)
        elif strategy != "random":
            yield strategy, None


def measure(
    kept: NDArray[np.int64], budgets: Sequence[int], evol_scores: NDArray[np.float64], embeddings: NDArray[Any], points: NDArray[np.float32]
) -> list[Measures]:
    """Measures of the first `budget` of `kept` rows, for each of `budgets`. `points`: float32 (m, d), normalised rows of the pool."""
    rows, _ = normalised(np.asarray(embeddings[kept])) if len(kept) else (points[:0], None)
    found = []
    for budget, (mean, worst) in zip(budgets, _coverage(points, rows, budgets), strict=True):
        chosen = kept[:budget]
        score = float(evol_scores[chosen].mean()) if len(chosen) else float("nan")
        found.append(Measures(len(chosen), score, mean, worst, _redundancy(rows[:budget])))
    return found


def _coverage(points: NDArray[np.float32], rows: NDArray[np.float32], budgets: Sequence[int]) -> list[tuple[float, float]]:
    """(mean, worst) distance of `points` to the first `budget` of `rows`, in one pass over the points for all budgets."""
    if not len(rows) or not len(points):
        return [(float("nan"), float("nan"))] * len(budgets)
    total, worst = np.zeros(len(budgets)), np.full(len(budgets), -np.inf)
    for start in range(0, len(points), BLOCK):
        near = points[start : start + BLOCK] @ rows.T
        for number, budget in enumerate(budgets):
            distance = 1 - near[:, :budget].max(axis=1).astype(np.float64)
            total[number] += distance.sum()
            worst[number] = max(worst[number], distance.max())
    return [(float(mean), float(far)) for mean, far in zip(total / len(points), worst, strict=True)]


def _redundancy(rows: NDArray[np.float32]) -> float:
    """Mean similarity of a row to its nearest other row; NaN for fewer than two."""
    if len(rows) < 2:
        return float("nan")
    total = 0.0
    for start in range(0, len(rows), BLOCK):
        near = rows[start : start + BLOCK] @ rows.T
        own = np.arange(len(near))
        near[own, start + own] = -np.inf
        total += float(near.max(axis=1).astype(np.float64).sum())
    return total / len(rows)


def jaccard(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Rows in both selections over rows in either; 1 for two empty ones."""
    together = len(np.union1d(one, other))
    return len(np.intersect1d(one, other)) / together if together else 1.0
