"""MIG: information gain on a graph of tags."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.errors import UsageError
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.mig import TagGraph, tags_of
from deita_tasks.selecting.reference import Reference

# Complexity and quality of rows of the published data/example.jsonl, and their tags.
EXAMPLES = {
    "perl": (2.035370713781308, 3.5785536465098664),
    "years": (1.999543748914027, 2.980803492688863),
    "story": (3.5750873933499285, 2.014152166496107),
}
EXAMPLE_TAGS = {
    "perl": ["code translation", "code understanding", "code comment"],
    "years": ["information retrieval", "list generation", "data analysis"],
    "story": [
        "creative writing assistance",
        "character development",
        "format",
        "tension building",
    ],
}


def select(scores, tags, vectors, budget, **options):
    reference = Reference(list(vectors), np.array(list(vectors.values())), tags)
    strategy = load_selector("mig", budget=budget, **options).with_reference(reference)
    return strategy.select(list(scores), np.array(list(scores.values())), None).kept


def test_similar_tags_share_what_they_are_given_by_hand():
    """The cosine of a and b is 0.96: a column of 1 and 0.96 adds up to 1.96."""
    vectors = np.array([[1, 0, 0], [0.96, 0.28, 0], [0, 0, 1]])
    graph = TagGraph.build(Reference(["a", "b", "c"], vectors), 0.9)
    part = graph.spread(4.0, ["a"])
    assert part.tags.tolist() == [0, 1]
    np.testing.assert_allclose(part.amounts, [4 / 1.96, 4 * 0.96 / 1.96], rtol=1e-6)
    both = graph.spread(3.0, ["a", "c"])
    np.testing.assert_allclose(both.amounts, [1.5 / 1.96, 1.5 * 0.96 / 1.96, 1.5], rtol=1e-6)
    with pytest.raises(UsageError, match="tag 'd' has no vector"):
        graph.spread(1.0, ["d"])


def test_a_tag_that_has_much_counts_little_by_hand():
    """All parts are new at first, so the scores decide: 4. Its tag then has about 2, whose slope is
    0.8 * 2 ** -0.2 = 0.70, where an empty tag has 0.8 * 1e-6 ** -0.2 = 12.7: 2 * 12.7 > 3 * 0.70.
    """
    scores = {"r1": 4.0, "r2": 3.0, "r3": 2.0}
    tags = {"r1": ["a"], "r2": ["b"], "r3": ["c"]}
    vectors = {"a": [1, 0, 0], "b": [0.96, 0.28, 0], "c": [0, 0, 1]}
    assert select(scores, tags, vectors, 3) == ["r1", "r3", "r2"]
    # Where a and b are not joined, b is as empty as c.
    assert select(scores, tags, vectors, 3, tag_similarity=0.97) == ["r1", "r2", "r3"]


def test_the_published_examples():
    """No two tags are alike, so the scores decide: 7.2837, 7.2008 and 5.9603."""
    scores = {name: c * q for name, (c, q) in EXAMPLES.items()}
    names = [tag for tags in EXAMPLE_TAGS.values() for tag in tags]
    vectors = dict(zip(names, np.eye(len(names)), strict=True))
    assert select(scores, EXAMPLE_TAGS, vectors, 3) == ["perl", "story", "years"]
    assert load_selector("mig", budget=1).evol_score == "mean"


def by_the_program(scores, tags, vectors, budget):
    """The rule of the published mig/sampler.py: dense, and every gain anew for each pick."""
    names = sorted(vectors)
    rows = np.array([vectors[name] for name in names], float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    weights = rows @ rows.T
    weights[weights < 0.9] = 0
    spread = weights / weights.sum(axis=0)
    parts = np.zeros((len(scores), len(names)))
    for row, id in enumerate(scores):
        for tag in tags[id]:
            parts[row, names.index(tag)] = scores[id] / len(tags[id])
    parts = parts @ spread
    given_to_tags, kept, gains = np.zeros(len(names)), [], []
    while len(kept) < min(budget, len(scores)):
        gain = parts @ (0.8 * (given_to_tags + 1e-6) ** -0.2)
        gain[kept] = -1
        best = int(np.argmax(gain))
        gains.append(np.sort(gain)[-2:])
        kept.append(best)
        given_to_tags += parts[best]
    margins = [1.0 if len(two) < 2 else (two[1] - two[0]) / two[1] for two in gains]
    return [list(scores)[row] for row in kept], min(margins, default=1.0)


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 6), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_it_is_the_published_program(seed, count, tag_count, budget):
    random = np.random.default_rng(seed)
    names = [f"tag {i}" for i in range(tag_count)]
    vectors = {name: random.standard_normal(2) for name in names}  # in a plane, some are alike
    ids = [f"{i:02d}" for i in range(count)]
    scores = dict(zip(ids, np.sort(random.uniform(1, 36, count))[::-1], strict=True))
    tags = {id: random.choice(names, random.integers(1, tag_count + 1), False) for id in ids}
    expected, margin = by_the_program(scores, tags, vectors, budget)
    kept = select(scores, tags, vectors, budget)
    assert kept == expected or margin < 1e-6


def test_tags_of_a_column():
    assert tags_of({"r": ["a", " ", "b"], "s": "c", "t": None}) == {
        "r": ["a", "b"],
        "s": ["c"],
        "t": [],
    }
    with pytest.raises(UsageError, match="row r: tags '5'; expected a list of texts"):
        tags_of({"r": 5})
