"""Files of scores that are text: CSV and JSON Lines."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from deita_tasks.errors import InputError
from deita_tasks.scoring import load_scorer
from tests.models.test_provided import row, scores


def test_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "s.CSV"
    path.write_text('\ufeffdoc,quality,note\r\n07,"[2, 3.5]","a\nb"\r\n8,4,\r\n9,,\r\n10,good,\r\n')
    rows = [row(1, 2, doc="07"), row(2, doc=8), row(3, doc=9), row(4, doc=10)]
    values, problems = scores(rows, file=str(path), key="doc")
    np.testing.assert_array_equal(values, [2, 3.5, 4, math.nan, math.nan])
    assert problems == {
        2: f"its 'quality' is null in {path}",
        3: "'good' is not a number or a list of numbers",
    }


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("s.csv", b"id,quality\na,1\nb\n", "line 3 has 1 cells; expected 2"),
        ("s.csv", b'id,quality\na,"1\n', "line 2 is not CSV"),
        ("s.csv", b"id,id\na,1\n", "has a name twice"),
        ("s.csv", b"id,quality\n\xff,1\n", "utf-8"),
        ("s.jsonl", b'{"id": 1}\n{"id": \n', "line 2 is not JSON"),
        ("s.jsonl", b"[1]\n", r"line 1 is '\[1\]'; expected a JSON object"),
        ("s.jsonl", b'{"name": 1}\n', "the name of a column that the pool has too"),
        ("s.jsonl", b'{"id": "x"}\n', "no 'quality'"),
        ("s.txt", b"x", "expected a Parquet file of scores or vectors, or a .csv or .jsonl"),
    ],
)
def test_text_files_that_cannot_be_read(
    name: str, content: bytes, problem: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=problem):
        load_scorer("provided", kind="quality", file=str(tmp_path / name))
