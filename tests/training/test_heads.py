"""The texts that heads are fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from deita_tasks.scoring.mini.features import instruction_features
from deita_tasks.training.heads import EncodedTexts, add_second_label
from deita_tasks.training.texts import LabelledTexts, normalise_prompt


def encoded(*instructions: str) -> EncodedTexts:
    """Texts whose states, words, labels and target are their positions."""
    position = np.arange(len(instructions), dtype=float)
    return EncodedTexts(
        prompts=[normalise_prompt(text) for text in instructions],
        features=[instruction_features(text) for text in instructions],
        states=position[:, None].astype(np.float32),
        words=position,
        labels=position,
        groups=np.arange(len(instructions)),
        target=position,
    )


def test_texts_without_the_prompts_of_others() -> None:
    texts = encoded("Name a tree.", "Sing!", "Why?")
    remaining = texts.without_prompts_of(encoded("sing", "name  two trees"))
    assert remaining.prompts == ["name a tree", "why"]
    assert remaining.features == [texts.features[0], texts.features[2]]
    assert remaining.states.tolist() == [[0], [2]]
    for values in (remaining.words, remaining.labels, remaining.groups, remaining.target):
        assert values.tolist() == [0, 2]


def test_prompts_with_two_labels_have_the_sum_of_both() -> None:
    texts = EncodedTexts(
        prompts=["a", "b", "c"],
        features=[{}] * 3,
        states=np.zeros((3, 0), np.float32),
        words=np.zeros(3),
        labels=np.zeros(3),
        groups=np.arange(3),
        target=np.array([1.0, 2, 3]),
    )
    second = LabelledTexts(["B!", "a"], np.array([7.0, 9.0]), np.zeros(2, np.int64))
    high = 0.67449  # the normal distribution at 3/4, of two ranks
    expected = [1 + high, 2 - high, 3]
    assert add_second_label(texts, second).target.tolist() == pytest.approx(expected, abs=1e-5)
