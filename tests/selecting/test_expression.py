"""Expressions of scores: what they are worth, worked out by hand, and what is refused."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_tasks.errors import ComputeError, UsageError
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.evol import evol_scores_of_columns, expression_scores, flatten
from deita_tasks.selecting.expression import parse_expression

VALUES = {
    "complexity": np.array([2.0, 4.0]),
    "quality": np.array([3.0, 1.0]),
    "ifd": np.array([0.5, 0.25]),
    "length": np.array([1.0, 100.0]),
    "provided:mark": np.array([-10.0, 7.0]),
    'provided:"a - b"': np.array([1.0, 2.0]),
}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("ifd", [0.5, 0.25]),
        ("complexity * quality", [6, 4]),
        ("2 * complexity - quality / 4", [3.25, 7.75]),
        ("2 * (complexity - quality)", [-2, 6]),
        ("-ifd", [-0.5, -0.25]),
        ("mean(complexity, quality, 4)", [3, 3]),
        ("min(complexity, quality)", [2, 1]),
        ("max(complexity, 3)", [3, 4]),
        ("log(length)", [0, math.log(100)]),
        ("provided:mark + 0.5", [-9.5, 7.5]),
        ('provided:"a - b" * ifd', [0.5, 0.5]),
    ],
)
def test_values_by_hand(text, values):
    expression = parse_expression(text)
    assert expression.evaluate(VALUES).tolist() == values
    again = parse_expression(expression.text)  # as the fingerprint has it
    assert (again.text, again.names) == (expression.text, expression.names)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not an expression"),
        ("ifd +", "not an expression"),
        ("novelty", "unknown score 'novelty'"),
        ("1 + 1", "it names no score"),
        ("ifd ** 2", "'ifd ** 2' is not allowed"),
        ("__import__('os')", "is not allowed"),
        ("ifd.real", "is not allowed"),
        ("[ifd][0]", "is not allowed"),
        ("ifd if quality else 1", "is not allowed"),
        ("max()", "is not allowed"),
        ("log(ifd, 2)", "log takes one value"),
        ("True * ifd", "is not allowed"),
        ("min", "unknown score 'min'"),
        ("-" * 490 + "ifd", "not an expression"),
        ("ifd" + " " * 500, "503 characters"),
    ],
)
def test_anything_else_is_refused(text, problem):
    with pytest.raises(UsageError, match="rank_by") as refused:
        parse_expression(text)
    assert problem in str(refused.value)


score_lists = st.lists(
    st.lists(st.tuples(*[st.floats(1, 6, width=32)] * 2), min_size=1, max_size=5), max_size=8
)


@given(score_lists, st.sampled_from(["sum", "mean", "max"]))
def test_the_evol_score_as_an_expression_is_the_evol_score(rows, aggregation):
    complexity, quality = (
        pa.array([[turn[side] for turn in row] for row in rows], pa.list_(pa.float32()))
        for side in (0, 1)
    )
    columns = {"complexity": flatten(complexity), "quality": flatten(quality)}
    found = expression_scores(parse_expression("complexity * quality"), aggregation, columns)
    np.testing.assert_array_equal(found, evol_scores_of_columns(complexity, quality, aggregation))


def test_a_row_s_single_value_is_for_all_its_turns():
    columns = {
        "ifd": flatten(pa.array([[0.5, 0.25], [0.5], None, [0.5, None]], pa.list_(pa.float32()))),
        "provided:mark": flatten(pa.array([[4.0], [2.0], [1.0], [1.0]], pa.list_(pa.float32()))),
    }
    expression = parse_expression("ifd * provided:mark")
    for aggregation, values in {"sum": [3, 1], "mean": [1.5, 1], "max": [2, 1]}.items():
        found = expression_scores(expression, aggregation, columns)
        assert found[:2].tolist() == values
        assert np.isnan(found[2:]).all()
    columns["ifd"] = flatten(pa.array([[0.5, 0.5]] * 4, pa.list_(pa.float32())))
    columns["provided:mark"] = flatten(pa.array([[1.0, 1.0, 1.0]] * 4, pa.list_(pa.float32())))
    with pytest.raises(ComputeError, match="row 0: 2 values of ifd for 3 turns"):
        expression_scores(expression, "sum", columns)


def test_what_a_strategy_makes_of_it():
    plain = load_selector("top_score", budget=3)
    for text in ("complexity * quality", "complexity*quality", "quality * complexity"):
        assert load_selector("top_score", budget=3, rank_by=text) == plain
    assert "rank_by" not in plain.fingerprint() and "ifd_below" not in plain.fingerprint()
    strategy = load_selector("top_score", budget=3, rank_by="2*ifd + length")
    assert strategy.score_names == ["ifd"]
    assert strategy.fingerprint()["rank_by"] == "2 * ifd + length"
    assert strategy.fingerprint()["ifd_below"] == 1.0
    with pytest.raises(UsageError, match="expected only one of them"):
        load_selector("quality_only", budget=3, rank_by="ifd")
    with pytest.raises(UsageError, match="expected ifd in rank_by, which is 'complexity"):
        load_selector("top_score", budget=3, ifd_below=2)
