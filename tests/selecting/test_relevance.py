"""Relevance to a target: the round robin of RDS+."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.errors import UsageError
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.reference import Reference
from tests.support.selection_pools import pools
from tests.support.selection_reference import similarity, unit


def select(pool, budget, targets, names=None):
    names = names or [f"t{i}" for i in range(len(targets))]
    reference = Reference(names, np.array(targets, np.float32))
    return load_selector("relevance", budget=budget).with_reference(reference).select(*pool).kept


def test_targets_take_turns_by_hand():
    """Cosines to (1, 0): a 1, b .8, d .6, c 0; to (0, 1): c 1, d .8, b .6, a 0."""
    pool = list("abcd"), np.ones(4), np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]])
    targets = [[1, 0], [0, 2]]
    assert select(pool, 4, targets) == ["a", "c", "b", "d"]
    assert select(pool, 3, targets, names=["z", "y"]) == ["c", "a", "d"], "by their ids"
    assert select(pool, 2, [[1, 0]]) == ["a", "b"]


def test_groups_take_turns_by_hand():
    """b, with one target, has as many turns as a with two."""
    pool = list("abcd"), np.ones(4), np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]])
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    reference = Reference(["x", "y", "z"], vectors, groups=["a", "a", "b"])
    strategy = load_selector("relevance", budget=4).with_reference(reference)
    assert list(strategy.select(*pool).kept) == ["a", "c", "b", "d"]
    alone = Reference(["x", "y", "z"], vectors)
    strategy = load_selector("relevance", budget=4).with_reference(alone)
    assert list(strategy.select(*pool).kept) == ["a", "b", "c", "d"]


def test_a_taken_row_is_passed_over_and_ties_go_by_score():
    pool = list("abc"), np.array([1, 2, 3]), np.array([[1, 0], [1, 0], [0, 1]])
    assert select(pool, 3, [[1, 0], [2, 0]]) == ["b", "a", "c"]


@given(pools(), st.integers(1, 30), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_it_is_the_rule_one_pick_at_a_time(pool, budget, count):
    ids, scores, rows = pool
    targets = np.random.default_rng(count).standard_normal((count, rows.shape[1]))
    left = [i for i in np.flatnonzero(np.isfinite(scores)) if unit(rows[i])]
    left.sort(key=lambda i: (-scores[i], ids[i]))
    units = {i: unit(rows[i]) for i in left}
    target_units = [unit(target) for target in targets.astype(np.float32)]
    expected = []
    while left and len(expected) < budget:
        target = target_units[len(expected) % count]
        pick = max(left, key=lambda i: similarity(units[i], target))
        left.remove(pick)
        expected.append(ids[pick])
    assert select(pool, budget, targets) == expected


def test_targets_of_another_embedder_are_refused():
    pool = ["a"], np.ones(1), np.ones((1, 2))
    with pytest.raises(UsageError, match="of 3 dimensions, where the pool's have 2"):
        select(pool, 1, [[1, 2, 3]])
    with pytest.raises(UsageError, match="Relevance compares rows with a reference"):
        load_selector("relevance", budget=1).select(*pool)
