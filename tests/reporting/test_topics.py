"""Topics: their words by hand, and rows planted in clusters."""

from __future__ import annotations

import numpy as np
import pytest

from deita_tasks.reporting import topics as topics_module
from deita_tasks.reporting.topics import (
    NO_WORDS,
    class_tf_idf,
    find_topics,
    list_title_words,
    nearest_centre,
    title_topics,
)
from deita_tasks.selecting.arrays import Floats


@pytest.fixture
def any_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """All texts are of one language, and a few are enough to know it."""
    monkeypatch.setattr(topics_module, "MIN_TEXTS", 1)
    monkeypatch.setattr(topics_module, "detect_language", lambda texts: "en")


def test_class_tf_idf_by_hand() -> None:
    """Three classes, and the words cat, dog and pet. cat and dog are in one class, pet in all."""
    counts = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 2.0]])
    expected = [
        [2 * np.log(1 + 2 / 2), 0, np.log(1 + 2 / 4)],
        [0, np.log(1 + 2 / 1), np.log(1 + 2 / 4)],
        [0, 0, 2 * np.log(1 + 2 / 4)],
    ]
    assert class_tf_idf(counts, mean_size=2) == pytest.approx(np.array(expected))


def test_titles_of_three_tiny_documents(any_language: None) -> None:
    """Each document is a topic, so every word's count is 1 there, and a word of two documents has
    ln(1 + 1/2) where one of its own has ln(1 + 1/1). Equal words stand by the alphabet.
    """
    texts = ["Zebra eats apple", "apple and MANGO", "mango mango mango 2024 is up"]
    titles = title_topics(texts, np.array([0, 1, 2]), 3)
    assert titles == ["eats, zebra, apple", "apple, mango", "mango"]


def test_a_word_counts_once_in_a_text(any_language: None) -> None:
    """tea is in two texts, and coffee only often in one."""
    texts = ["coffee coffee coffee coffee tea", "tea", "milk", "milk"]
    titles = title_topics(texts, np.array([0, 0, 1, 1]), 2)
    assert titles == ["tea, coffee", "milk"]


def test_words_that_a_language_has_in_many_texts_say_nothing() -> None:
    fruits = ["Banane", "Birne", "Kirsche", "Traube", "Zitrone"]
    texts = [
        f"Warum schmeckt diese {fruits[i % 5]} heute nicht so gut wie immer?" for i in range(25)
    ]
    common = {"warum", "schmeckt", "diese", "heute", "nicht", "gut", "wie", "immer"}
    for words in list_title_words(texts, 12):
        assert not words & common
    few = list_title_words(texts[:3], 12)
    assert few == [{"German"}] * 3, "too few to tell"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("机器学习", {"机器", "器学", "学习"}),
        ("データの分析です", {"デー", "ータ", "分析"}),  # no Hiragana: endings and particles
        ("हिन्दी में लिखो", {"हिन्दी", "में", "लिखो"}),
        ("다항식을 인수분해", {"다항식을", "인수분해"}),
        ("Überprüfe x1 = 42", {"überprüfe"}),
    ],
)
def test_words_of_any_script(any_language: None, text: str, words: set[str]) -> None:
    assert list_title_words([text], 12) == [words]


def test_a_title_repeats_no_word(any_language: None) -> None:
    """functions begins like function, and the pieces of a text without spaces overlap."""
    titles = title_topics(["function functions sort", "机器学习"], np.array([0, 1]), 2)
    assert titles == ["function, sort", "器学"]
    assert title_topics(["12 34", ""], np.array([0, 1]), 2) == [NO_WORDS] * 2


def planted() -> tuple[list[str], Floats, dict[str, str]]:
    """Rows along three axes: 20 about cells, 15 about sonnets and 10 about recursion."""
    kinds = ["cells"] * 20 + ["sonnets"] * 15 + ["recursion"] * 10
    axes = {"cells": 0, "sonnets": 1, "recursion": 2}
    ids = [f"{row:03}" for row in range(45)]
    vectors = np.eye(3, dtype=np.float32)[[axes[kind] for kind in kinds]]
    texts = {id: f"Tell me about {kind}" for id, kind in zip(ids, kinds, strict=True)}
    return ids, vectors, texts


def test_planted_topics_are_found_and_counted(any_language: None) -> None:
    """No word of one topic is common, though 20 of 45 texts have it; tell is in all of them."""
    ids, vectors, texts = planted()
    selected = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1]], np.float32)
    found = find_topics(ids, vectors, selected, texts)
    counts = [(topic.title, topic.pool, topic.selected) for topic in found]
    assert counts == [("cells", 20, 2), ("sonnets", 15, 0), ("recursion", 10, 1)]
    assert [topic.centre.argmax() for topic in found] == [0, 1, 2]

    order = np.random.default_rng(0).permutation(45)
    shuffled = find_topics([ids[i] for i in order], vectors[order], selected, texts)
    assert [topic[:3] for topic in shuffled] == counts


def test_a_small_pool_has_no_topics() -> None:
    ids, vectors, texts = planted()
    assert find_topics(ids[:29], vectors[:29], vectors[:3], texts) == []


def test_rows_without_a_text_have_a_topic_too(any_language: None) -> None:
    ids, vectors, texts = planted()
    found = find_topics(ids, vectors, vectors[:0], {"000": texts["000"]})
    assert sorted((topic.pool, topic.selected) for topic in found) == [(10, 0), (15, 0), (20, 0)]
    assert sorted(topic.title for topic in found) == ["cells, tell", NO_WORDS, NO_WORDS]


def test_the_nearest_centre_is_that_of_least_distance() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    centres = rng.normal(size=(5, 4))
    distances = np.linalg.norm(vectors[:, None] - centres[None], axis=2)
    assert nearest_centre(vectors, centres).tolist() == distances.argmin(axis=1).tolist()
