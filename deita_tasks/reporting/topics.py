"""Topics: clusters of the pool's vectors, each with a title of its own words.

topics = find_topics(ids, pool_vectors, selected_vectors, texts)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from deita_tasks.conversations import Conversation
from deita_tasks.filtering.words import split_words
from deita_tasks.languages import UNDETERMINED, detect_language, language_name
from deita_tasks.selecting.arrays import Doubles, Floats, Indices
from deita_tasks.selecting.clusters import cluster_rows

MAX_TOPICS = 12
ROWS_PER_TOPIC = 15  # on average, at least
TITLE_WORDS = 4
MAX_TURNS = 6  # read of a conversation ...
TURN_CHARACTERS = 1_000  # ... and characters of each
# A word that so many texts of a language have says nothing of their topics, unless a topic can be
# so large: half as large again as the mean.
COMMON_SHARE = 0.15
LARGE_TOPIC = 1.5
MIN_COMMON = 3
MIN_TEXTS = 20  # of a language, to tell which words are common in it
NO_WORDS = "no common words"


class Topic(NamedTuple):
    """A cluster: its words, rows of the pool and of the selection, and its mean vector, (d,)."""

    title: str
    pool: int
    selected: int
    centre: Doubles


def find_topics(
    ids: Sequence[str], pool_vectors: Floats, selected_vectors: Floats, texts: Mapping[str, str]
) -> list[Topic]:
    """Return the topics of a pool, those with most rows first; none of a small pool.

    ids: distinct, of the rows of pool_vectors. pool_vectors, selected_vectors: normalised, (n, d)
    and (k, d). texts: by id, of some rows of the pool. A row belongs to the nearest centre of
    k-means clusters, so rows that the clusters were not made of have a topic too.
    """
    count = min(MAX_TOPICS, len(ids) // ROWS_PER_TOPIC)
    if count < 2:
        return []
    centres = _cluster_centres(ids, pool_vectors, count)
    topic_of_row = nearest_centre(pool_vectors, centres)
    topic_of_selected = nearest_centre(selected_vectors, centres)
    pool_rows = np.bincount(topic_of_row, minlength=len(centres))
    selected_rows = np.bincount(topic_of_selected, minlength=len(centres))
    rows_with_text = [row for row, id in enumerate(ids) if id in texts]
    known_texts = [texts[ids[row]] for row in rows_with_text]
    titles = title_topics(known_texts, topic_of_row[rows_with_text], len(centres))
    topics = []
    for position, title in enumerate(titles):
        topic = Topic(
            title=title,
            pool=int(pool_rows[position]),
            selected=int(selected_rows[position]),
            centre=centres[position],
        )
        topics.append(topic)
    return sorted(topics, key=lambda topic: (-topic.pool, topic.title))


def _cluster_centres(ids: Sequence[str], vectors: Floats, count: int) -> Doubles:
    """Return the mean vectors of at most `count` clusters, (c, d)."""
    clusters = cluster_rows(ids, vectors, count)
    means = []
    for cluster in np.unique(clusters):
        members = vectors[clusters == cluster]
        means.append(members.mean(axis=0, dtype=np.float64))
    return np.stack(means)


def nearest_centre(vectors: Floats, centres: Doubles) -> Indices:
    """Return the position of the centre (c, d) that is nearest to each of `vectors` (n, d)."""
    # |v - c|^2 = |v|^2 - 2 (v·c - |c|^2 / 2)
    closeness = vectors @ centres.T - (centres**2).sum(axis=1) / 2
    return np.asarray(closeness.argmax(axis=1), np.int64)


def title_topics(texts: Sequence[str], topic_of_text: Indices, topics: int) -> list[str]:
    """Return a title for each topic: the words of its texts with the largest class TF-IDF.

    A word counts once in each text, so that no long text decides alone.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    words = list_title_words(texts, topics)
    if not any(words):
        return [NO_WORDS] * topics
    vectorizer = CountVectorizer(analyzer=sorted)
    has_word = vectorizer.fit_transform(words)
    counts = np.zeros((topics, has_word.shape[1]))
    for topic in range(topics):
        rows = np.flatnonzero(topic_of_text == topic)
        counts[topic] = has_word[rows].sum(axis=0)
    weights = class_tf_idf(counts, mean_size=len(texts) / topics)
    vocabulary = vectorizer.get_feature_names_out()
    return [_title(of_topic, vocabulary) for of_topic in weights]


def list_title_words(texts: Sequence[str], topics: int) -> list[set[str]]:
    """Return the distinct words of each text that may stand in a title.

    Left out are numbers, short words, English stop words, and the words that a large share of the
    texts of their language have: so no language needs a list of its own. Texts of a language with
    too few of them have its name as their only word.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    share = max(COMMON_SHARE, LARGE_TOPIC / topics)
    words_of_texts = []
    by_language: dict[str, list[int]] = defaultdict(list)
    for position, text in enumerate(texts):
        words = set(_candidates(text))
        words_of_texts.append(words - ENGLISH_STOP_WORDS)
        language = detect_language([text])
        by_language[language].append(position)
    for language, positions in by_language.items():
        is_rare = len(positions) < MIN_TEXTS and language != UNDETERMINED
        name = language_name(language)
        common = _common_words([words_of_texts[position] for position in positions], share)
        for position in positions:
            words_of_texts[position] -= common
            if is_rare:
                words_of_texts[position] = {name}
    return words_of_texts


def _common_words(words_of_texts: Sequence[set[str]], share: float) -> set[str]:
    """Return the words that at least a share of these texts have."""
    texts: Counter[str] = Counter()
    for words in words_of_texts:
        texts.update(words)
    least = max(MIN_COMMON, share * len(words_of_texts))
    return {word for word, count in texts.items() if count >= least}


def _candidates(text: str) -> Iterator[str]:
    """Yield the words of a text; of scripts without spaces, pieces of neighbouring characters."""
    words = split_words(text)
    for word in words:
        shortest = 3 if word.isascii() else 2
        has_digit = any(map(str.isdigit, word))
        if len(word) >= shortest and not has_digit:
            yield word
    for first, second in pairwise(words):
        if _is_ideograph(first) and _is_ideograph(second):
            yield first + second


def _is_ideograph(word: str) -> bool:
    """Return whether a word is one Han or Katakana character, or one of South-East Asia."""
    if len(word) > 1 or word < "\u0e00":
        return False
    is_hiragana = "\u3040" <= word <= "\u309f"  # it writes endings and particles
    return not is_hiragana


def class_tf_idf(counts: Doubles, mean_size: float) -> Doubles:
    """Return the weight of each word in each class, (classes, words).

    The word's count in the class times log(1 + A / f): f is its count in all classes, A the mean
    size of a class (Grootendorst 2022, BERTopic, arXiv 2203.05794, equation 1). There the units are
    occurrences; here they are texts that have the word.
    """
    frequency = counts.sum(axis=0)
    weights: Doubles = counts * np.log1p(mean_size / frequency)
    return weights


def _title(weights: Doubles, vocabulary: Sequence[str]) -> str:
    """Return the words of the largest weights, without those that resemble one before."""
    words: list[str] = []
    order = np.argsort(-weights, kind="stable")
    for position in order:
        word = vocabulary[position]
        if weights[position] == 0 or len(words) == TITLE_WORDS:
            break
        is_new = not any(_resemble(word, other) for other in words)
        if is_new:
            words.append(word)
    return ", ".join(words) or NO_WORDS


def _resemble(word: str, other: str) -> bool:
    """Return whether one word begins the other, or they are overlapping pieces of a text."""
    if word.startswith(other) or other.startswith(word):
        return True
    return word[1:] == other[:-1] or other[1:] == word[:-1]


def topic_text(conversation: Conversation) -> str:
    """Return the beginnings of the turns of a conversation."""
    turns = [turn.content[:TURN_CHARACTERS] for turn in conversation.turns[:MAX_TURNS]]
    return "\n".join(turns)
