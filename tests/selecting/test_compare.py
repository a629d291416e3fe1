"""The measures of a sweep: by hand on vectors that can be worked out, and against one pair of rows
at a time.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deita_tasks.selecting import compare
from deita_tasks.selecting.compare import Judge, Measures, Setting, jaccard, settings, sweep
from tests.support.selection_reference import sequential

# East, north, between (0.6 to east, 0.8 to north), west; lengths differ, which a cosine does not
# see.
ROWS = np.array([[2, 0], [0, 1], [3, 4], [-1, 0]], np.float32)
SCORES = np.array([4.0, 3.0, 2.0, 1.0])
EVERYTHING = np.arange(4)
NAN = float("nan")


def measure(kept, budgets, rows=ROWS, scores=SCORES, sample=None):
    sample = np.arange(len(rows)) if sample is None else np.array(sample)
    return Judge(scores, rows, sample).measure(np.array(kept, np.int64), budgets)


def test_by_hand():
    one, three = measure([0, 2, 3], [1, 3])
    # Kept east alone: the distances are 0, 1, 0.4, 2. With between and west too: 0, 0.2, 0, 0.
    assert one[:2] == (1, 4.0)
    assert one[2:4] == pytest.approx((3.4 / 4, 2))
    assert math.isnan(one.redundancy)
    # East and between are each other's nearest (0.6); west's nearest is between (-0.6).
    assert three == pytest.approx((3, 7 / 3, 0.05, 0.2, 0.2), abs=1e-6)


def test_coverage_is_over_the_sample_alone():
    (found,) = measure([0], [1], sample=[1, 2])
    assert found[2:4] == pytest.approx((0.7, 1))


def test_a_budget_that_is_more_than_there_is_says_how_many_were_kept():
    two, many = measure([0, 2], [2, 9])
    assert many == two
    assert many.kept == 2


def test_nothing_kept_and_nothing_asked():
    (nothing,) = measure([], [3])
    assert nothing.kept == 0
    assert all(math.isnan(value) for value in nothing[1:])
    assert measure([0], []) == []


def test_a_row_without_a_usable_vector_counts_but_covers_nothing():
    """Neither as a kept row nor as one to be covered: a distance to it would be made up."""
    rows = np.vstack([ROWS, [[0, 0]]]).astype(np.float32)
    found = measure([4, 0], [1, 2], rows, np.array([4.0, 3, 2, 1, 6]))
    assert found[0].mean_evol_score == 6
    assert math.isnan(found[0].coverage_mean)
    assert found[1].kept == 2
    assert found[1].mean_evol_score == 5
    assert found[1][2:4] == pytest.approx((3.4 / 4, 2))
    assert math.isnan(found[1].redundancy)


def plainly(kept, budget, rows, scores):
    """Every pair of rows by itself."""

    def cosine(a, b):
        return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))

    chosen = kept[:budget]
    far = [1 - max(cosine(row, rows[k]) for k in chosen) for row in rows]
    near = (
        [max(cosine(rows[k], rows[other]) for other in chosen if other != k) for k in chosen]
        if len(chosen) > 1
        else [NAN]
    )
    return Measures(
        len(chosen), np.mean([scores[k] for k in chosen]), np.mean(far), max(far), np.mean(near)
    )


def test_the_device_goes_to_the_strategy_that_takes_it():
    assert Setting("diverse", 0.5).selector(3, 0, "cpu").device == "cpu"
    assert Setting("top_score").selector(3, 0, "cpu").budget == 3


POOLS = st.integers(2, 24).flatmap(
    lambda n: arrays(np.float64, (n, 3), elements=st.integers(-8, 8))
)


@how(deadline=None)
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
    found = measure(kept, budgets, rows, scores)
    for budget, one in zip(budgets, found, strict=True):
        assert one == pytest.approx(
            plainly(kept, budget, rows.astype(np.float64), scores), abs=2e-6, nan_ok=True
        )


def test_pieces_do_not_show(monkeypatch):
    rows = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    whole = measure(range(30), [1, 7, 30], rows, np.arange(50.0))
    monkeypatch.setattr(compare, "PRODUCTS", 90)  # three rows at a time
    assert measure(range(30), [1, 7, 30], rows, np.arange(50.0)) == [
        pytest.approx(one, abs=1e-6, nan_ok=True) for one in whole
    ]


def test_settings():
    assert settings(["diverse", "random", "top_score"], [0.5, 0.9]) == [
        Setting("diverse", 0.5),
        Setting("diverse", 0.9),
        Setting("top_score"),
        Setting("random"),
    ]


@how(deadline=None)
@given(POOLS, st.floats(-1, 1), st.sets(st.integers(1, 30), min_size=1, max_size=4))
def test_each_cell_is_the_selection_of_its_budget(rows, limit, budgets):
    """Although each setting runs once: budgets nest. The control has as many rows as the selection,
    where the pool runs out too.
    """
    rows = rows.astype(np.float32) + np.float32(0.5)
    ids, scores = [f"{i:02d}" for i in range(len(rows))], np.arange(len(rows), dtype=np.float64) % 7
    compared = settings(["diverse", "top_score"], [limit])
    cells = list(
        sweep(
            ids,
            lambda strategy: scores,
            rows,
            sorted(budgets),
            compared,
            np.arange(len(rows)),
            seed=3,
        )
    )
    assert [(cell.setting, cell.budget) for cell in cells] == [
        (setting, budget) for setting in compared for budget in sorted(budgets)
    ]
    drawn = [
        int(id) for id in Setting("random").selector(len(rows), 3).select(ids, scores, None).kept
    ]
    for cell in cells:
        kept = [ids[position] for position in cell.kept]
        if cell.setting.strategy == "diverse":
            assert kept == sequential(ids, list(scores), rows, cell.budget, limit)[0]
        else:
            assert kept == cell.setting.selector(cell.budget, 3).select(ids, scores, rows).kept
        assert cell.measures.kept == cell.control.kept == len(kept)
        assert cell.measures == pytest.approx(
            plainly(list(cell.kept), cell.budget, rows.astype(np.float64), scores),
            abs=2e-6,
            nan_ok=True,
        )
        assert cell.control == pytest.approx(
            plainly(drawn, len(kept), rows.astype(np.float64), scores), abs=2e-6, nan_ok=True
        )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3], [3, 2, 1], 1),
        ([1, 2, 3], [3, 4], 0.25),
        ([1], [2], 0),
        ([1], [], 0),
        ([], [], 1),
    ],
)
def test_jaccard(one, other, expected):
    assert jaccard(np.array(one, np.int64), np.array(other, np.int64)) == expected
