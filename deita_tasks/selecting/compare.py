"""Compares selections: how well each covers the pool, how redundant it is, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from deita_tasks.selecting import load_selector
from deita_tasks.selecting.arrays import Doubles, Floats, Indices
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.reference import Reference, ReferenceKind
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader

PRODUCTS_AT_ONCE = 20_000_000  # similarities held in memory: 80 MB
CONTROL = "random"


class Measures(NamedTuple):
    """The measures of one selection; NaN if there is nothing to measure.

    coverage_mean, coverage_worst: over rows of the pool, the mean and the largest distance to the
    nearest kept row. redundancy: the mean similarity of a kept row to its nearest other kept row.
    Distances are 1 - cosine similarity, from 0 to 2.
    """

    kept: int
    mean_evol_score: float
    coverage_mean: float
    coverage_worst: float
    redundancy: float


class StrategySetting(NamedTuple):
    """A strategy, with its limit, what it compares rows with, and what it ranks by, if set."""

    strategy: str
    max_similarity: float | None = None
    reference: Reference | None = None
    rank_by: str | None = None

    def load(self, budget: int, seed: int, device: str = "auto") -> Selector:
        """Return the strategy; `seed` and `device` go to those that have such an option."""
        options: dict[str, Any] = {"budget": budget}
        if self.rank_by is not None:
            options["rank_by"] = self.rank_by
        if self.strategy == CONTROL:
            options["seed"] = seed
        if self.max_similarity is not None:
            options |= {"max_similarity": self.max_similarity, "device": device}
        strategy = load_selector(self.strategy, **options)
        return strategy if self.reference is None else strategy.with_reference(self.reference)


class ComparedSelection(NamedTuple):
    """One selection of a sweep, and the measures of a random one (`control`) of the same size.

    `kept`: int64, positions in the order chosen.
    """

    setting: StrategySetting
    budget: int
    kept: Indices
    measures: Measures
    control: Measures


def list_settings(
    strategies: Sequence[str],
    similarities: Sequence[float],
    references: Mapping[ReferenceKind, Reference] = MappingProxyType({}),
    rank_by: str | None = None,
) -> list[StrategySetting]:
    """Return every strategy, diverse with each limit of `similarities`; the control comes last.

    references: what strategies compare rows with, by kind. rank_by: what all of them rank by.
    """
    settings = []
    for name in strategies:
        kind = load_selector(name, budget=1).reference_kind
        if name == "diverse":
            settings += [StrategySetting(name, limit) for limit in similarities]
        elif kind is not None:
            settings.append(StrategySetting(name, reference=references[kind]))
        elif name != CONTROL:
            settings.append(StrategySetting(name))
    settings.append(StrategySetting(CONTROL))
    return [setting._replace(rank_by=rank_by) for setting in settings]


def sweep(
    ids: Sequence[str],
    ranking: Callable[[Selector], Doubles],
    embeddings: Floats,
    budgets: Sequence[int],
    settings: Sequence[StrategySetting],
    sample: Indices,
    seed: int = 0,
    device: str = "auto",
) -> Iterator[ComparedSelection]:
    """Yield the selection of each setting and each of the ascending `budgets`, with its measures.

    `ranking` returns the scores (n,) by which a strategy ranks. The measures use those of the
    control, the evol scores. Budgets nest, so each setting runs once, with the largest. Coverage is
    measured over the rows at the positions `sample`. Memory: the vectors of the sample and of one
    selection, in float32.
    """
    largest_budget = budgets[-1]
    position_of = {row_id: position for position, row_id in enumerate(ids)}
    control_setting = StrategySetting(CONTROL, rank_by=settings[0].rank_by)
    evol_scores = ranking(control_setting.load(largest_budget, seed))
    evaluator = Evaluator(evol_scores, embeddings, sample)

    def run(setting: StrategySetting) -> Indices:
        """Return the positions of the kept rows, int64 (k,), in the order they were kept."""
        strategy = setting.load(largest_budget, seed, device)
        selection = strategy.select(ids, ranking(strategy), embeddings)
        return np.array([position_of[row_id] for row_id in selection.kept], np.int64)

    random_rows = run(control_setting)
    random_measures = evaluator.measure(random_rows, budgets)
    controls = dict(zip(budgets, random_measures, strict=True))  # by the number of kept rows
    for setting in settings:
        if setting.strategy == CONTROL:
            kept, measured = random_rows, random_measures
        else:
            kept = run(setting)
            measured = evaluator.measure(kept, budgets)
        # Sizes that are not budgets: the pool ran out.
        kept_counts = {measures.kept for measures in measured}
        sizes = sorted(kept_counts - controls.keys())
        controls |= zip(sizes, evaluator.measure(random_rows, sizes), strict=True)
        for budget, measures in zip(budgets, measured, strict=True):
            control = controls[measures.kept]
            yield ComparedSelection(setting, budget, kept[:budget], measures, control)


class Evaluator:
    """Measures selections from one pool.

    `evol_scores`: (n,). `embeddings`: (n, d). `sample`: positions of the rows over which coverage
    is measured.
    """

    def __init__(self, evol_scores: Doubles, embeddings: Floats, sample: Indices) -> None:
        self._scores = evol_scores
        self._reader = EmbeddingReader(embeddings, len(evol_scores))
        points, comparable = self._reader.read(sample)
        self._points = points[comparable]

    def measure(self, kept: Indices, budgets: Sequence[int]) -> list[Measures]:
        """Return the measures of the first `budget` rows of `kept`, for each ascending budget.

        All budgets are measured in one pass. A row without a usable vector covers nothing.
        """
        if not budgets:
            return []
        rows, comparable = self._reader.read(kept[: budgets[-1]])
        sizes = [int(comparable[:budget].sum()) for budget in budgets]
        rows = rows[comparable]
        distances = self._measure_distances(rows, sizes)
        similarities = _measure_redundancy(rows, sizes)
        return [
            Measures(
                kept=min(budget, len(kept)),
                mean_evol_score=self._mean_score(kept[:budget]),
                coverage_mean=distance.mean,
                coverage_worst=distance.largest,
                redundancy=similarity.mean,
            )
            for budget, distance, similarity in zip(budgets, distances, similarities, strict=True)
        ]

    def _measure_distances(self, rows: Floats, sizes: Sequence[int]) -> list[_Summary]:
        """Summarise, for each size, the distances of the sample to the nearest kept row."""
        summaries = [_Summary() for _ in sizes]
        for _, nearest in largest_similarities(self._points, rows, sizes):
            for summary, column in zip(summaries, nearest.T, strict=True):
                summary.add(1 - column)
        return summaries

    def _mean_score(self, kept: Indices) -> float:
        """Return the mean evol score of the rows at the positions `kept`; NaN for none."""
        if not len(kept):
            return float("nan")
        return float(self._scores[kept].mean())


def _measure_redundancy(rows: Floats, sizes: Sequence[int]) -> list[_Summary]:
    """Summarise, for each size, the similarities of kept rows to their nearest other kept row."""
    summaries = [_Summary() for _ in sizes]
    for start, nearest in largest_similarities(rows, rows, sizes, exclude_self=True):
        for summary, column, size in zip(summaries, nearest.T, sizes, strict=True):
            summary.add(column[: max(0, size - start)])
    return summaries


class _Summary:
    """The mean and the largest of numbers that arrive in pieces.

    NaN if there are none, or if they are not finite: there was nothing to compare with.
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._count = 0
        self._largest = -np.inf

    def add(self, values: Doubles) -> None:
        """Add m numbers, float64 (m,). -inf stands for no row to compare with."""
        largest = float(values.max(initial=-np.inf))
        self._sum += float(values.sum())
        self._count += len(values)
        self._largest = max(self._largest, largest)

    @property
    def mean(self) -> float:
        """The mean of all numbers so far; NaN if there are none, or one is not finite."""
        if not self._count or not np.isfinite(self._sum):
            return float("nan")
        return self._sum / self._count

    @property
    def largest(self) -> float:
        """The largest number so far; NaN if there are none, or it is not finite."""
        if not np.isfinite(self._largest):
            return float("nan")
        return self._largest


def largest_similarities(
    points: Floats, rows: Floats, sizes: Sequence[int], exclude_self: bool = False
) -> Iterator[tuple[int, Doubles]]:
    """Yield each point's largest cosine similarity to the first `size` rows, for ascending sizes.

    `points` (m, d) and `rows` (k, d) are normalised. Yields a block of b points at a time: the
    number of its first point, and float64 (b, sizes), -inf if there is no row. `exclude_self`:
    point i is row i, and is not compared with itself.
    """
    step = max(1, PRODUCTS_AT_ONCE // max(1, len(rows)))
    for start in range(0, len(points), step):
        products = points[start : start + step] @ rows.T
        np.clip(products, -1, 1, out=products)
        if exclude_self:
            block = np.arange(len(products))
            products[block, start + block] = -np.inf
        bounds = zip([0, *sizes], sizes, strict=False)
        between_sizes = [products[:, low:high].max(axis=1, initial=-np.inf) for low, high in bounds]
        largest = np.maximum.accumulate(np.column_stack(between_sizes), axis=1)
        yield start, largest.astype(np.float64)


def jaccard(left: Indices, right: Indices) -> float:
    """Return the Jaccard index of two selections without repeated rows: shared rows over all rows.

    1 for two empty ones.
    """
    in_both = np.intersect1d(left, right, assume_unique=True)
    shared = len(in_both)
    total = len(left) + len(right) - shared
    return shared / total if total else 1.0
