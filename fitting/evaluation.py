"""How well the mini scorers do on sources that they were not fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from deita_tasks.training.fit import Matrix, spearman
from deita_tasks.training.heads import (
    EncodedTexts,
    Features,
    fit_complexity,
    fit_quality,
    predict_totals,
)
from deita_tasks.training.texts import Comparisons
from fitting.labels import CONSTRAINTS, GENERAL, HARMLESS, QUALITY_FAMILIES, SAME_PROMPTS

SEED = 0  # of the random choices


def pairwise_accuracy(values: Matrix, compared: Comparisons) -> float:
    """Return the share of comparisons in which the better response has the higher value.

    Equal values count half. NaN without comparisons.
    """
    difference = values[compared.better] - values[compared.worse]
    if not len(difference):
        return float("nan")
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def spearman_within_groups(values: Matrix, texts: EncodedTexts) -> float:
    """Return the mean rank correlation among the variants of one seed; NaN if there is one seed."""
    seeds = np.unique(texts.groups)
    if len(seeds) <= 1:
        return float("nan")
    groups = [np.flatnonzero(texts.groups == seed) for seed in seeds]
    correlations = [
        spearman(values[group], texts.labels[group]) for group in groups if len(group) > 2
    ]
    return float(np.mean(correlations))


def complexity_table(sources: Mapping[str, EncodedTexts]) -> list[str]:
    """Return the rank correlation for every source, as lines of a table.

    Each is by a head that saw neither the source nor its prompts, beside the number of words and a
    random choice.
    """
    random = np.random.default_rng(SEED)
    lines = [
        f"{'complexity, left out':28} {'n':>5} {'mini':>7} {'words':>7} {'random':>7}   "
        "within a seed: mini, words"
    ]
    for name, texts in sources.items():
        head = fit_complexity(*_other_sources(name, sources))
        values = predict_totals(head, texts)
        predictions = (values, texts.words, random.random(len(values)))
        figures = [spearman(prediction, texts.labels) for prediction in predictions]
        within = [spearman_within_groups(prediction, texts) for prediction in predictions[:2]]
        lines.append(f"{name:28} {len(values):5} {_figures(figures)}   {_figures(within)}")
    return lines


def _other_sources(
    name: str, sources: Mapping[str, EncodedTexts]
) -> tuple[EncodedTexts | None, list[EncodedTexts]]:
    """Return the general source and those with constraints, without a source and its prompts."""
    texts = sources[name]
    general: EncodedTexts | None = None
    if name not in (GENERAL, SAME_PROMPTS):
        general = sources[GENERAL].without_prompts_of(texts)
    others = [source for source in CONSTRAINTS if source != name]
    return general, [sources[source].without_prompts_of(texts) for source in others]


def comparisons_without(
    names: Sequence[str], compared: Mapping[str, Comparisons], prompts: Sequence[str]
) -> list[list[Comparisons]]:
    """Return the comparisons, by family, without those of `names`, their families and prompts.

    `prompts`: of every pair.
    """
    excluded = {prompts[i] for name in names for i in compared[name].better}

    def remaining(source: Comparisons) -> Comparisons:
        mask = [prompts[i] not in excluded for i in source.better]
        return source.select(np.array(mask, bool))

    families: list[list[Comparisons]] = []
    for family in QUALITY_FAMILIES.values():
        if not set(family) & set(names):
            families.append([remaining(compared[source]) for source in family])
    return families


def quality_table(
    prompts: Sequence[str],
    features: Sequence[Features],
    words: Matrix,
    compared: Mapping[str, Comparisons],
) -> list[str]:
    """Return the share of right decisions for every source, as lines of a table.

    Each is by a head that saw neither the source's family nor its prompts, beside the number of
    words and a random choice; then only for comparisons whose better response is the shorter one,
    where words are always wrong. `prompts`, `features`, `words`: of every pair.
    """
    random = np.random.default_rng(SEED)
    lines = [
        f"{'quality, left out':28} {'n':>5} {'mini':>7} {'words':>7} {'random':>7}   where "
        "the longer is worse: n, mini"
    ]
    for family in (*QUALITY_FAMILIES.values(), (HARMLESS,)):
        head = fit_quality(features, comparisons_without(family, compared, prompts))
        values = head.total(head.standardise(features))
        for name in family:
            source = compared[name]
            predictions = (values, words, random.random(len(values)))
            figures = [pairwise_accuracy(prediction, source) for prediction in predictions]
            shorter = source.select(_better_is_shorter(words, source))
            lines.append(
                f"{name:28} {len(source.better):5} {_figures(figures)}   {len(shorter.better):5} "
                f"{pairwise_accuracy(values, shorter):7.3f}"
            )
    return lines


def _better_is_shorter(words: Matrix, source: Comparisons) -> NDArray[np.bool_]:
    shorter: NDArray[np.bool_] = words[source.better] < words[source.worse]
    return shorter


def _figures(values: Sequence[float]) -> str:
    return " ".join(f"{value:7.3f}" for value in values)
