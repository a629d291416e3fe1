"""The measures of a sweep: by hand on vectors that can be worked out, and against one pair of rows
at a time.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deita_tasks.selecting import compare
from deita_tasks.selecting.compare import (
    Evaluator,
    Measures,
    StrategySetting,
    jaccard,
    list_settings,
    sweep,
)
from tests.support.selection_reference import sequential

# East, north, between (0.6 to east, 0.8 to north), west; lengths differ, which a cosine does not
# see.
ROWS = np.array([[2, 0], [0, 1], [3, 4], [-1, 0]], np.float32)
SCORES = np.array([4.0, 3.0, 2.0, 1.0])
EVERYTHING = np.arange(4)
NAN = float("nan")


def measure(kept, budgets, rows=ROWS, scores=SCORES, sample=None):
    sample = np.arange(len(rows)) if sample is None else np.array(sample)
    return Evaluator(scores, rows, sample).measure(np.array(kept, np.int64), budgets)


def test_by_hand():
    first, three = measure([0, 2, 3], [1, 3])
    # Kept east alone: the distances are 0, 1, 0.4, 2. With between and west too: 0, 0.2, 0, 0.
    assert first[:2] == (1, 4.0)
    assert first[2:4] == pytest.approx((3.4 / 4, 2))
    assert math.isnan(first.redundancy)
    # East and between are each other's nearest (0.6); west's nearest is between (-0.6).
    assert three == pytest.approx((3, 7 / 3, 0.05, 0.2, 0.2), abs=1e-6)


def test_coverage_is_over_the_sample_alone():
    (measures,) = measure([0], [1], sample=[1, 2])
    assert measures[2:4] == pytest.approx((0.7, 1))


def test_a_budget_that_is_more_than_there_is_says_how_many_were_kept():
    two, nine = measure([0, 2], [2, 9])
    assert nine == two
    assert nine.kept == 2


def test_nothing_kept_and_nothing_asked():
    (nothing,) = measure([], [3])
    assert nothing.kept == 0
    assert all(math.isnan(value) for value in nothing[1:])
    assert measure([0], []) == []


def test_a_row_without_a_usable_vector_counts_but_covers_nothing():
    """Neither as a kept row nor as one to be covered: a distance to it would be made up."""
    rows = np.vstack([ROWS, [[0, 0]]]).astype(np.float32)
    first, both = measure([4, 0], [1, 2], rows, np.array([4.0, 3, 2, 1, 6]))
    assert first.mean_evol_score == 6
    assert math.isnan(first.coverage_mean)
    assert both.kept == 2
    assert both.mean_evol_score == 5
    assert both[2:4] == pytest.approx((3.4 / 4, 2))
    assert math.isnan(both.redundancy)


def cosine(a, b):
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def measure_pair_by_pair(kept, budget, rows, scores):
    """Every pair of rows by itself."""
    kept = kept[:budget]
    distances = [1 - max(cosine(row, rows[k]) for k in kept) for row in rows]
    nearest = [NAN]
    if len(kept) > 1:
        nearest = [max(cosine(rows[k], rows[j]) for j in kept if j != k) for k in kept]
    mean_score = np.mean([scores[k] for k in kept])
    return Measures(len(kept), mean_score, np.mean(distances), max(distances), np.mean(nearest))


def test_the_device_goes_to_the_strategy_that_takes_it():
    assert StrategySetting("diverse", 0.5).load(3, 0, "cpu").device == "cpu"
    assert StrategySetting("top_score").load(3, 0, "cpu").budget == 3


POOLS = st.integers(2, 24).flatmap(
    lambda n: arrays(np.float64, (n, 3), elements=st.integers(-8, 8))
)


@hypothesis_settings(deadline=None)
@given(POOLS, st.data())
def test_one_pass_for_all_budgets_is_what_each_pair_says(rows, data):
    rows = rows.astype(np.float32) + np.float32(0.5)  # no zero vector
    kept = data.draw(
        st.permutations(range(len(rows))).map(
            lambda order: order[: data.draw(st.integers(1, len(rows)))]
        )
    )
    budgets = sorted(data.draw(st.sets(st.integers(1, 30), min_size=1, max_size=4)))
    scores = np.arange(len(rows), dtype=np.float64)
    exact_rows = rows.astype(np.float64)
    for budget, measures in zip(budgets, measure(kept, budgets, rows, scores), strict=True):
        expected = measure_pair_by_pair(kept, budget, exact_rows, scores)
        assert measures == pytest.approx(expected, abs=2e-6, nan_ok=True)


def test_pieces_do_not_show(monkeypatch):
    rows = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    whole = measure(range(30), [1, 7, 30], rows, np.arange(50.0))
    monkeypatch.setattr(compare, "PRODUCTS_AT_ONCE", 90)  # three rows at a time
    assert measure(range(30), [1, 7, 30], rows, np.arange(50.0)) == [
        pytest.approx(measures, abs=1e-6, nan_ok=True) for measures in whole
    ]


def test_list_settings():
    assert list_settings(["diverse", "random", "top_score"], [0.5, 0.9]) == [
        StrategySetting("diverse", 0.5),
        StrategySetting("diverse", 0.9),
        StrategySetting("top_score"),
        StrategySetting("random"),
    ]


@hypothesis_settings(deadline=None)
@given(POOLS, st.floats(-1, 1), st.sets(st.integers(1, 30), min_size=1, max_size=4))
def test_each_selection_is_that_of_its_budget(rows, limit, budgets):
    """Although each setting runs once: budgets nest. The control has as many rows as the selection,
    where the pool runs out too.
    """
    rows = rows.astype(np.float32) + np.float32(0.5)
    ids = [f"{i:02d}" for i in range(len(rows))]
    scores = np.arange(len(rows), dtype=np.float64) % 7
    settings = list_settings(["diverse", "top_score"], [limit])
    sample = np.arange(len(rows))
    budgets = sorted(budgets)
    compared = list(sweep(ids, lambda _: scores, rows, budgets, settings, sample, seed=3))
    assert [(selection.setting, selection.budget) for selection in compared] == [
        (setting, budget) for setting in settings for budget in budgets
    ]
    control = StrategySetting("random").load(len(rows), 3)
    random_rows = [int(row_id) for row_id in control.select(ids, scores, None).kept]
    exact_rows = rows.astype(np.float64)
    for setting, budget, kept, measures, control_measures in compared:
        if setting.strategy == "diverse":
            expected_ids = sequential(ids, list(scores), rows, budget, limit)[0]
        else:
            expected_ids = setting.load(budget, 3).select(ids, scores, rows).kept
        assert [ids[position] for position in kept] == expected_ids
        assert measures.kept == control_measures.kept == len(kept)
        expected = measure_pair_by_pair(list(kept), budget, exact_rows, scores)
        assert measures == pytest.approx(expected, abs=2e-6, nan_ok=True)
        expected = measure_pair_by_pair(random_rows, len(kept), exact_rows, scores)
        assert control_measures == pytest.approx(expected, abs=2e-6, nan_ok=True)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([1, 2, 3], [3, 2, 1], 1),
        ([1, 2, 3], [3, 4], 0.25),
        ([1], [2], 0),
        ([1], [], 0),
        ([], [], 1),
    ],
)
def test_jaccard(left, right, expected):
    assert jaccard(np.array(left, np.int64), np.array(right, np.int64)) == expected
