"""Fit the heads of the mini scorers to labelled texts and to comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deita_tasks.scoring.mini.encoder import MiniEncoder
from deita_tasks.scoring.mini.features import instruction_features
from deita_tasks.scoring.mini.head import DifficultyJudge, Head, embed_points, gaussian_kernel
from deita_tasks.training.fit import (
    Matrix,
    centre_within_groups,
    consistent_features,
    fit_bradley_terry,
    fit_kernel_ridge,
    fit_positive_ridge,
    normal_scores,
)
from deita_tasks.training.texts import Comparisons, LabelledTexts, normalise_prompt
from deita_tasks.words import count_words

# By cross-validation within the general source, which is flat around these values.
JUDGED_WIDTH = 0.5
JUDGED_PENALTY = 0.3
COUNTED_PENALTY = 0.03
QUALITY_PENALTY = 0.01
MIN_COMPARISONS = 20  # a source with fewer is not fitted to
EPSILON = 1e-12  # so that constant values can be divided by their standard deviation

Features: TypeAlias = Mapping[str, float]
Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class EncodedTexts:
    """The n labelled texts of a source, as the scorer sees them.

    `states`: (n, s). `target`: (n,), what is fitted: the normal scores of the labels, or the sum of
    two such (`add_second_label`).
    """

    prompts: Sequence[str]
    features: Sequence[Features]
    states: Floats
    words: Matrix
    labels: Matrix
    groups: NDArray[np.int64]
    target: Matrix

    def without_prompts_of(self, texts: EncodedTexts) -> EncodedTexts:
        """Return the texts whose prompts are not in `texts`: a set to test a fit to those with."""
        excluded = set(texts.prompts)
        keep = [i for i, prompt in enumerate(self.prompts) if prompt not in excluded]
        return EncodedTexts(
            prompts=[self.prompts[i] for i in keep],
            features=[self.features[i] for i in keep],
            states=self.states[keep],
            words=self.words[keep],
            labels=self.labels[keep],
            groups=self.groups[keep],
            target=self.target[keep],
        )


def encode_texts(source: LabelledTexts, encoder: MiniEncoder) -> EncodedTexts:
    """Return the n texts of a source with their features and states.

    The states are float32 (n, 3 * 384). The target is the normal scores of the labels.
    """
    return EncodedTexts(
        prompts=[normalise_prompt(text) for text in source.texts],
        features=[instruction_features(text) for text in source.texts],
        states=encoder.states(source.texts).values,
        words=np.array([count_words(text) for text in source.texts], np.float64),
        labels=source.labels,
        groups=source.groups,
        target=normal_scores(source.labels),
    )


def add_second_label(texts: EncodedTexts, second: LabelledTexts) -> EncodedTexts:
    """Return `texts` with the sum of two labels of the same judge as their target.

    The labels have two scales; their sum is less noisy than either. A prompt that is not in
    `second` keeps one.
    """
    prompts = [normalise_prompt(text) for text in second.texts]
    labels = pd.Series(normal_scores(second.labels))
    scores = labels.groupby(prompts).mean()
    second_target = scores.reindex(list(texts.prompts)).fillna(0).to_numpy()
    return replace(texts, target=texts.target + second_target)


def untrained_head(features: Sequence[Features]) -> Head:
    """Return a head with the names, means and deviations of `features`, and zero weights.

    Each is float32 (k,) for k features, in the order of the first text's; there is no judge.
    """
    names = list(features[0])
    values = np.array([[row[name] for name in names] for row in features])
    return Head(
        names=names,
        mean=values.mean(0).astype(np.float32),
        scale=(values.std(0) + 1e-6).astype(np.float32),
        counted=np.zeros(len(names), np.float32),
        counted_offset=np.zeros(1, np.float32),
        middle=np.zeros(1, np.float32),
        spread=np.ones(1, np.float32),
    )


def fit_complexity(general: EncodedTexts | None, constraints: Sequence[EncodedTexts]) -> Head:
    """Return the complexity head.

    `general`: texts with a judge's difficulty, None if they are left out. `constraints`: seeds with
    more and more demands. The judged opinion is fitted across the general texts; the counted one
    within seeds, where nothing but the demands differs.
    """
    sources = list(constraints) if general is None else [general, *constraints]
    head = untrained_head([row for source in sources for row in source.features])
    root = np.sqrt(len(head.names))
    centred: list[tuple[Matrix, Matrix]] = []
    for source in constraints:
        x = head.standardise(source.features) / root
        centred_target = centre_within_groups(source.target, source.groups)
        centred.append((centre_within_groups(x, source.groups), centred_target))
    weights = fit_positive_ridge(centred, COUNTED_PENALTY) / root
    standardised = [head.standardise(source.features) for source in sources]
    features = np.concatenate(standardised)
    counted, offset = scale_to_unit(features @ weights, weights)
    head = replace(head, counted=counted, counted_offset=offset)
    if general is None:
        return head
    return replace(head, judge=fit_judge(head.standardise(general.features), general))


def fit_judge(features: Matrix, general: EncodedTexts) -> DifficultyJudge:
    """Return a judge with all general texts as its examples. `features`: (n, k), standardised."""
    mean = general.states.mean(0)
    scale = general.states.std(0) + np.float32(1e-6)
    examples = embed_points(features, general.states, mean, scale).astype(np.float16)
    kernel = gaussian_kernel(examples.astype(np.float32), examples, JUDGED_WIDTH)
    exact_kernel = kernel.astype(np.float64)
    fitted = fit_kernel_ridge(exact_kernel, general.target, JUDGED_PENALTY)
    weights, offset = scale_to_unit(exact_kernel @ fitted, fitted)
    width = np.array([JUDGED_WIDTH], np.float32)
    return DifficultyJudge(mean, scale, examples, weights, width, offset)


def scale_to_unit(values: Matrix, weights: Matrix) -> tuple[Floats, Floats]:
    """Return weights and an offset, scaled so that the values have mean 0 and deviation 1.

    `values`: what `weights` give.
    """
    spread = values.std() + EPSILON
    shift = -values.mean() / spread
    offset = np.array([shift], np.float32)
    return (weights / spread).astype(np.float32), offset


def predict_totals(head: Head, texts: EncodedTexts) -> Matrix:
    """Return the sum of a head's opinions on `texts`, float64 (n,), before it becomes a score."""
    return head.total(head.standardise(texts.features), texts.states)


def calibrate(head: Head, totals: Matrix) -> Head:
    """Return the head with its scores spread over texts with these totals, (n,).

    Their mean becomes a score of 3.5.
    """
    middle = np.array([totals.mean()], np.float32)
    spread = np.array([totals.std()], np.float32)
    return replace(head, middle=middle, spread=spread)


def fit_quality(features: Sequence[Features], families: Sequence[Sequence[Comparisons]]) -> Head:
    """Return the quality head, from comparisons by family.

    It uses the features with the same sign in every family beside the number of words, weighed by a
    Bradley-Terry model. `features`: of every pair.
    """
    compared = compared_positions(source for family in families for source in family)
    head = untrained_head([features[i] for i in compared])
    x = np.zeros((len(features), len(head.names)))
    x[compared] = head.standardise([features[i] for i in compared])
    differences: list[list[Matrix]] = []
    for family in families:
        large = [source for source in family if len(source.better) >= MIN_COMPARISONS]
        if large:
            differences.append([x[source.better] - x[source.worse] for source in large])
    consistent = consistent_features(differences, head.names.index("words"), QUALITY_PENALTY)
    selected = [source[:, consistent] for family in differences for source in family]
    weights = np.zeros(len(consistent))
    weights[consistent] = fit_bradley_terry(selected, QUALITY_PENALTY)
    counted, offset = scale_to_unit(x[compared] @ weights, weights)
    return replace(head, counted=counted, counted_offset=offset)


def compared_positions(sources: Iterable[Comparisons]) -> list[int]:
    """Return the positions of all pairs that are compared, sorted and each once."""
    positions: set[int] = set()
    for source in sources:
        positions.update(source.better.tolist(), source.worse.tolist())
    return sorted(positions)
