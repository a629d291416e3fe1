"""The evol score of one conversation, and of millions in columns."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.errors import ComputeError, UsageError
from deita_tasks.selecting.evol import (
    evol_score,
    evol_scores,
    evol_scores_of_columns,
    ranking_scores,
)

NAN = float("nan")


def test_by_hand():
    complexity, quality = [2.0, 3.5, 1.0], [4.0, 2.0, 5.5]
    assert evol_score(complexity, quality) == 8 + 7 + 5.5
    assert evol_score(complexity, quality, aggregation="mean") == 20.5 / 3
    assert evol_score(complexity, quality, aggregation="max") == 8


@pytest.mark.parametrize("aggregation", ["sum", "mean", "max"])
def test_a_missing_turn_or_no_turn_gives_no_score(aggregation):
    assert math.isnan(evol_score([1, NAN], [2, 2], aggregation))
    assert math.isnan(evol_score([1, 2, 3], [2, None, 2], aggregation))
    assert math.isnan(evol_score([], [], aggregation))


def test_products_of_float32_scores_are_not_rounded_to_float32():
    complexity, quality = np.float32(2.0230105), np.float32(3.3333333)
    assert evol_score([complexity], [quality]) == float(complexity) * float(quality)


scores = st.one_of(st.none(), st.just(NAN), st.floats(1, 6, width=32))


@given(
    st.lists(st.lists(st.tuples(scores, scores), max_size=12)),
    st.sampled_from(["sum", "mean", "max"]),
)
@settings(deadline=None)
def test_columns_equal_a_loop_over_turns_to_the_last_bit(rows, aggregation):
    def aggregate(row):
        if not row or any(x is None or y is None or math.isnan(x + y) for x, y in row):
            return NAN
        products = [x * y for x, y in row]
        if aggregation == "max":
            return max(products)
        total = products[0]
        for product in products[1:]:  # not sum(), which compensates from Python 3.12 on
            total += product
        return total if aggregation == "sum" else total / len(products)

    expected = np.array([aggregate(row) for row in rows])
    one_by_one = np.array(
        [evol_score([x for x, _ in row], [y for _, y in row], aggregation) for row in rows]
    )
    columns = [
        pa.array([[turn[side] for turn in row] for row in rows], pa.list_(pa.float32()))
        for side in (0, 1)
    ]
    np.testing.assert_array_equal(one_by_one, expected)
    np.testing.assert_array_equal(evol_scores_of_columns(*columns, aggregation), expected)
    chunked = [pa.chunked_array([column[:1], column[1:]]) for column in columns]
    np.testing.assert_array_equal(evol_scores_of_columns(*chunked, aggregation), expected)
    np.testing.assert_array_equal(
        evol_scores_of_columns(columns[0][2:], columns[1][2:], aggregation), expected[2:]
    )


def test_offsets_may_start_and_end_within_the_values():
    assert evol_scores([1, 3, 3, 4], [9, 1, 2, 3, 9], [9, 1, 1, 1, 9]).tolist()[::2] == [3, 3]


def test_a_null_row_has_no_score_whatever_the_other_side_says():
    complexity = pa.array([[1.0], None, [2.0, 2.0], None], pa.list_(pa.float32()))
    quality = pa.array([[3.0], [1.0, 2.0], [1.0, 1.0], None], pa.list_(pa.float32()))
    np.testing.assert_array_equal(evol_scores_of_columns(complexity, quality), [3, NAN, 4, NAN])
    np.testing.assert_array_equal(evol_scores_of_columns(quality, complexity), [3, NAN, 4, NAN])


@pytest.mark.parametrize(
    ("complexity", "quality", "scores"),
    [
        ([4], [5, 2, 3], {"sum": 40, "mean": 40 / 3, "max": 20}),  # 4 * 5, 4 * 2, 4 * 3
        ([5, 2, 3], [4], {"sum": 40, "mean": 40 / 3, "max": 20}),
        ([4], [5], {"sum": 20, "mean": 20, "max": 20}),  # once, however many turns the row has
        ([4], [5, None], {"sum": NAN, "mean": NAN, "max": NAN}),
        ([None], [5, 2], {"sum": NAN, "mean": NAN, "max": NAN}),
    ],
)
def test_a_single_score_is_for_the_whole_conversation(complexity, quality, scores):
    columns = [
        pa.array([[2.0, 3.0], x, None], pa.list_(pa.float32())) for x in (complexity, quality)
    ]
    for aggregation, score in scores.items():
        np.testing.assert_equal(evol_score(complexity, quality, aggregation), score)
        found = evol_scores_of_columns(*columns, aggregation)
        np.testing.assert_equal(found[1:], [score, NAN])


def test_what_does_not_match_is_refused():
    with pytest.raises(ComputeError, match="3 complexity scores and 2 quality scores"):
        evol_score([1, 2, 3], [1, 2])
    with pytest.raises(ComputeError, match="1 complexity scores and 0 quality scores"):
        evol_score([1], [])
    with pytest.raises(ComputeError, match="row 1: 2 complexity scores and 3 quality scores"):
        evol_scores_of_columns(pa.array([[1.0], [1.0, 2.0]]), pa.array([[1.0], [1.0, 1.0, 1.0]]))
    with pytest.raises(ComputeError, match="row 0: 1 complexity scores and 0 quality scores"):
        evol_scores_of_columns(pa.array([[1.0]]), pa.array([[]], pa.list_(pa.float64())))
    with pytest.raises(ComputeError, match="2 rows of complexity and 1 of quality"):
        evol_scores_of_columns(pa.array([[1.0], [1.0]]), pa.array([[1.0]]))
    with pytest.raises(ComputeError, match="expected two flat arrays of one length"):
        evol_scores([0, 1], [1.0], [1.0, 2.0])
    for offsets in ([0, 3], [], [1, 0], [-1, 1]):
        with pytest.raises(ComputeError, match="expected n \\+ 1 ascending positions"):
            evol_scores(offsets, [1.0, 2.0], [1.0, 2.0])
    with pytest.raises(UsageError, match="evol_score 'median': expected one of sum, mean, max"):
        evol_score([1], [1], aggregation="median")


def test_rankings_by_hand():
    complexity = pa.array([[2.0, 3.0], [1.0], None, [None, 5.0]], pa.list_(pa.float32()))
    quality = pa.array([[4.0, 1.0], [6.0], [2.0], [1.0, 1.0]], pa.list_(pa.float32()))
    np.testing.assert_array_equal(
        ranking_scores("evol", "sum", complexity, quality), [11, 6, NAN, NAN]
    )
    np.testing.assert_array_equal(
        ranking_scores("complexity", "sum", complexity, None), [5, 1, NAN, NAN]
    )
    np.testing.assert_array_equal(ranking_scores("quality", "mean", None, quality), [2.5, 6, 2, 1])
    np.testing.assert_array_equal(
        ranking_scores("quality", "max", complexity, quality), [4, 6, 2, 1]
    )
    np.testing.assert_array_equal(
        ranking_scores("length", "sum", None, None, [7, 8, 9, 10]), [7, 8, 9, 10]
    )


def test_rankings_name_what_they_miss():
    column = pa.array([[1.0]])
    with pytest.raises(
        UsageError,
        match="ranking 'evol' lacks a column: expected complexity and quality",
    ):
        ranking_scores("evol", "sum", column, None)
    with pytest.raises(UsageError, match="ranking 'length' lacks a column: expected lengths"):
        ranking_scores("length", "sum", column, column)
    with pytest.raises(
        UsageError, match="ranking 'beauty': expected one of evol, complexity, quality, length"
    ):
        ranking_scores("beauty", "sum", column, column)
