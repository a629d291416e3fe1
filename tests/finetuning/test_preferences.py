"""Preference pairs: the layouts that are read, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deita_tasks.errors import InputError
from deita_tasks.finetuning.preferences import encode_preferences
from deita_tasks.models.chat import IGNORED
from deita_tasks.models.chat_tokenizer import Tokenization
from deita_tasks.results.preference_files import read_preferences
from tests.support.tiny_base import END

USER = {"role": "user", "content": "Why?"}
GOOD = {"role": "assistant", "content": "Because."}
BAD = {"role": "assistant", "content": "No."}
LAYOUTS: list[dict[str, Any]] = [
    {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
    {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
]


def write(path: Path, rows: list[Any]) -> list[str]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(path)]


@pytest.mark.parametrize("row", LAYOUTS)
def test_layouts(row: dict[str, Any], tmp_path: Path) -> None:
    (preference,), left_out = read_preferences(write(tmp_path / "pairs.jsonl", [row]))
    assert preference.fields == {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
    assert left_out == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Why?", "chosen": "No.", "rejected": "No."}, "both answers are the same"),
        ({"prompt": "Why?", "chosen": "", "rejected": "No."}, "no text .* in the column chosen"),
        ({"prompt": "Why?", "chosen": "Yes."}, "no text .* in the column rejected"),
        ({"chosen": [USER, GOOD], "rejected": [GOOD]}, "begin differently"),
        ({"prompt": "Why?", "chosen": [USER], "rejected": "No."}, "are not the assistant's"),
    ],
)
def test_a_row_that_is_no_preference_is_named(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    import re

    kept, (left_out,) = read_preferences(write(tmp_path / "pairs.jsonl", [LAYOUTS[0], row]))
    assert len(kept) == 1
    assert left_out.source.row == 2
    assert re.search(reason, left_out.reason)
    with pytest.raises(InputError, match=r"no preference pair \(1 rows: .*expected the columns"):
        read_preferences(write(tmp_path / "only.jsonl", [row]))


def test_labels_are_on_the_last_answer_alone(tokenization: Tokenization, tmp_path: Path) -> None:
    row = {"prompt": [USER, GOOD, USER], "chosen": [GOOD], "rejected": [BAD]}
    preferences, _ = read_preferences(write(tmp_path / "pairs.jsonl", [row]))
    (encoded,), _ = encode_preferences(preferences, tokenization.tokenizer, 512)
    texts = [
        tokenization.tokenizer.decode([label for label in side.labels if label != IGNORED])
        for side in (encoded.chosen, encoded.rejected)
    ]
    assert texts == [f" Because.{END}", f" No.{END}"]
    none, left_out = encode_preferences(preferences, tokenization.tokenizer, 16)
    assert none == []
    assert "beyond the window of 16 tokens" in left_out[0].reason
