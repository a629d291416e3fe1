"""facility_location against its definition, one row at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.records import Rejection
from deita_tasks.selecting import facility_location, load_selector
from tests.support.selection_pools import row_ids


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that a pool of twenty rows takes several blocks."""
    monkeypatch.setattr(facility_location, "BLOCK_ROWS", 4)


def coverage(units, kept):
    return np.maximum(units @ units[kept].T, 0).max(axis=1).sum()


@given(st.integers(0, 2**32), st.integers(1, 14))
@settings(max_examples=60, deadline=None)
def test_facility_location_takes_the_largest_gain_each_time(seed, budget):
    rng = np.random.default_rng(seed)
    rows, scores = rng.standard_normal((25, 5)).astype(np.float32), rng.random(25)
    units = rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
    best_first = np.argsort(-scores).tolist()
    kept = []
    for _ in range(budget):
        totals = {i: coverage(units, [*kept, i]) for i in best_first if i not in kept}
        largest = max(totals.values())
        kept.append(next(i for i, total in totals.items() if total >= largest - 1e-4))
    selector = load_selector("facility_location", budget=budget)
    ids = row_ids(25)
    assert selector.select(ids, scores, rows).kept == [ids[i] for i in kept]


def test_facility_location_by_hand():
    """Two bunches and a row apart: one of the larger bunch, one of the smaller, then the row apart;
    of copies, the better.
    """
    rows = np.array([[1, 0, 0]] * 3 + [[0, 1, 0]] * 2 + [[0, 0, 1]], np.float32)
    selection = load_selector("facility_location", budget=4).select(
        list("abcdef"), np.array([1, 3, 2, 4, 5, 9]), rows
    )
    assert selection.kept == ["b", "e", "f", "d"]
    assert list(selection.rejected) == [
        Rejection("c", "below_budget"),
        Rejection("a", "below_budget"),
    ]
