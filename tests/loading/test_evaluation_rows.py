"""Which rows of evaluation files are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deita_tasks.conversations import Quarantined, SourceRow, Turn
from deita_tasks.errors import InputError
from deita_tasks.loading.evaluation_rows import (
    EvaluationRow,
    find_evaluation_files,
    read_evaluation_rows,
)


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"question": "Why?", "answer": "So."}, [("user", "Why?"), ("assistant", "So.")]),
        ({"question": "Why?", "choices": ["a", "b"], "answer_key": 1}, [("user", "Why?")]),
        ({"prompt": "Why?"}, [("user", "Why?")]),
        ({"messages": [{"role": "user", "content": "Why?"}]}, [("user", "Why?")]),
    ],
)
def test_a_prompt_needs_no_answer(
    tmp_path: Path, row: object, turns: list[tuple[str, str]]
) -> None:
    uri = write(tmp_path / "test.jsonl", row)
    expected = [Turn(role, text) for role, text in turns]  # type: ignore[arg-type]
    assert list(read_evaluation_rows(uri)) == [EvaluationRow(SourceRow(uri, 1), expected)]


def test_a_row_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    uri = write(tmp_path / "test.jsonl", {"prompt": "Why?"}, {"prompt": None}, {"prompt": " "})
    good, null, blank = read_evaluation_rows(uri)
    assert isinstance(good, EvaluationRow)
    assert isinstance(null, Quarantined) and isinstance(blank, Quarantined)
    assert (null.reason, blank.reason) == ("missing_field", "empty_conversation")


def test_a_file_without_prompts_is_refused(tmp_path: Path) -> None:
    uri = write(tmp_path / "test.jsonl", {"label": 1})
    with pytest.raises(InputError, match="unknown format"):
        list(read_evaluation_rows(uri))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        find_evaluation_files([str(tmp_path / "absent.jsonl")])
