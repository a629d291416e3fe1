"""What is trained on: rows that can be read and that repeat no test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="the extra train is not installed")

from deita_tasks.errors import TooManyBadRows
from deita_tasks.filtering.decontamination import EvaluationText, EvaluationTexts, OverlapRule
from deita_tasks.finetuning.examples import LeftOut, Survey
from deita_tasks.results.training_data import find_training_data
from deita_tasks.tasks.aligning import check_left_out
from tests.support.small_pool import ROWS, write_rows

COUNTS = ("tokens", "trained_tokens", "cut_rows", "cut_tokens", "cut_trained_tokens")


def test_rows_that_repeat_a_test_are_not_trained_on(tmp_path: Path) -> None:
    """They count neither as good nor as bad; what cannot be read still counts."""
    pool = write_rows(tmp_path / "pool.jsonl", [*ROWS[:3], {"messages": []}])
    question = ROWS[1]["messages"][0]["content"]
    found = find_training_data([str(pool)])
    texts = [EvaluationText("test.jsonl", 1, 1, "user", question.upper())]
    found.evaluation = EvaluationTexts(texts, OverlapRule())
    rows = list(found.rows())
    assert [row.source.row for row in rows] == [1, 2, 3, 4]
    assert [isinstance(row, LeftOut) for row in rows] == [False, True, False, True]
    left_out = Counter(row.reason for row in rows if isinstance(row, LeftOut))
    assert left_out["it repeats a text of the evaluation files"] == 1
    zeros = dict.fromkeys(COUNTS, 0)
    survey = Survey(rows=2, left_out=dict(left_out), lengths=[], **zeros)
    check_left_out(survey, 2 / 3)
    with pytest.raises(TooManyBadRows):
        check_left_out(survey, 0.7)
