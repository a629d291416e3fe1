"""Rejections: a sequence, and the same in columns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.records import Rejection
from deita_tasks.selecting import load_selector
from tests.support.selection_pools import pools


def test_the_rejected_are_a_sequence():
    selector = load_selector("top_score", budget=1)
    rejected = selector.select(["a", "b", "c"], np.array([3, 2, 1]), None).rejected
    expected = [Rejection("b", "below_budget"), Rejection("c", "below_budget")]
    assert len(rejected) == 2
    assert list(rejected) == expected
    assert rejected[-1] == expected[-1]
    assert list(rejected[1:]) == expected[1:]
    assert list(reversed(rejected)) == expected[::-1]
    assert expected[0] in rejected
    with pytest.raises(IndexError):
        rejected[2]


@given(pools(), st.integers(1, 9), st.sampled_from([0.9, 0.0, -1.0]))
@settings(deadline=None)
def test_rejections_by_columns_are_those_one_by_one(pool, budget, limit):
    ids, scores, rows = pool
    selector = load_selector("diverse", budget=budget, max_similarity=limit)
    rejected = selector.select(ids, scores, rows).rejected
    for rejections in (rejected, rejected[1:3]):
        columns = {name: column.to_pylist() for name, column in rejections.columns().items()}
        assert tuple(columns) == Rejection._fields
        from_columns = [Rejection(*fields) for fields in zip(*columns.values(), strict=True)]
        assert [repr(rejection) for rejection in rejections] == [
            repr(rejection) for rejection in from_columns
        ]
