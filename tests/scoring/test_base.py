"""The base class of scorers."""

from __future__ import annotations

import inspect

import pytest

from deita_tasks.errors import UsageError
from deita_tasks.scoring import base, load_scorer
from tests.support.docstrings import run_example


def test_the_example_in_the_docstring_is_a_scorer() -> None:
    names = run_example(inspect.getdoc(base.Scorer), base)
    scorer = names["QuestionMarks"](kind="complexity", most=4)
    assert scorer.score([("Why? How?", ""), ("Sing.", ""), ("?" * 9, "")]).tolist() == [3.5, 1, 6]
    assert scorer.score([]).shape == (0,)
    assert scorer.fingerprint()["most"] == 4


def test_unknown_scorers_are_named() -> None:
    with pytest.raises(UsageError, match=r"unknown scorer 'causal'.*did you mean 'causal_lm'"):
        load_scorer("causal", kind="quality")
