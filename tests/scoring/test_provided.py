"""Scores that the user brings for whole rows, and in another range than ours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from deita_tasks.errors import UsageError
from deita_tasks.scoring import load_scorer
from tests.models.test_provided import row, scores

# ---- one number a row


def test_a_number_for_the_whole_row() -> None:
    rows = [
        row(1, 3, quality_scores=4.5),
        row(2, 1, quality_scores=[2]),
        row(3, 2, quality_scores="3"),
        row(4, 2, quality_scores=[3, 4]),
    ]
    values, problems = scores(rows, per="row")
    np.testing.assert_array_equal(values, [4.5, 2, 3, math.nan])
    assert problems == {3: "2 scores, expected one for the row"}
    assert load_scorer("provided", kind="quality", per="row").score_counts(rows) == [1, 1, 1, 1]
    assert load_scorer("provided", kind="quality").score_counts(rows) == [3, 1, 2, 2]


# ---- other ranges


@pytest.mark.parametrize(
    ("scale", "own", "expected"),
    [
        ("0..1", [0, 0.5, 1], [1, 3.5, 6]),
        ("1..10", [1, 5.5, 10], [1, 3.5, 6]),
        (" 0 .. 100 ", [0, 20, 100], [1, 2, 6]),
        ("-1..1", [-1, -0.6, 1], [1, 2, 6]),
        ((0, 5), [0, 3, 5], [1, 4, 6]),
        ("1..6", [1, 2.5, 6], [1, 2.5, 6]),
    ],
)
def test_scores_of_another_range(scale: Any, own: list[float], expected: list[float]) -> None:
    values, problems = scores([row(1, 3, quality_scores=own)], scale=scale)
    np.testing.assert_allclose(values, expected, rtol=1e-7)
    assert problems == {}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (10.5, "10.5 is not in [0, 10], the scale of its scores"),
        (-0.1, "-0.1 is not in [0, 10]"),
        (math.nan, "nan is not in [0, 10]"),
        (10**400, "is not in [0, 10]"),
    ],
)
def test_what_is_not_in_the_range(value: float, problem: str) -> None:
    values, problems = scores(
        [row(1, quality_scores=value), row(2, quality_scores=2)], scale="0..10"
    )
    np.testing.assert_array_equal(values, [math.nan, 2])
    assert problem in problems[0]


def test_a_value_of_another_range_names_the_option() -> None:
    assert "quality_scale" in scores([row(1, quality_scores=8)])[1][0]


@pytest.mark.parametrize(
    "scale", ["10", "0-10", "10..0", "3..3", "0...5", "0..inf", "nan..1", "a..b"]
)
def test_what_is_no_range(scale: str) -> None:
    with pytest.raises(UsageError, match=r"expected LOW\.\.HIGH"):
        load_scorer("provided", kind="quality", scale=scale)
