"""Rows from Python are read as strictly as files."""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
import pytest

from deita_tasks.errors import EmptyFile, InputError
from deita_tasks.loading import read_conversations, save_pool
from tests.support.loading_pools import SAMPLES, fates, good

pytest_plugins = ["tests.support.s3_fixtures"]

KINDS = {
    "dicts": lambda rows: rows,
    "generator": iter,
    "dataset": datasets.Dataset.from_list,
    "dataframe": pd.DataFrame,
}


@pytest.mark.parametrize("format", SAMPLES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_from_python(kind, format, place):
    rows, expected = SAMPLES[format]
    assert [row.turns for row in good(list(read_conversations(KINDS[kind](rows))))] == expected
    uri = save_pool(KINDS[kind](rows), place)
    assert [row.turns for row in good(list(read_conversations(uri)))] == expected
    assert save_pool(KINDS[kind](rows), place) == uri
    assert save_pool(rows[:1], place) != uri


def test_values_are_exact(tmp_path):
    frame = pd.DataFrame(
        {
            "prompt": ["p", "p"],
            "response": pd.Series(["r", "\ud800"], dtype=object),
            "count": [2**53 + 1, 1],
            "share": [0.1, float("nan")],
            "vector": [np.array([1.5, 2]), None],
            "when": [pd.Timestamp("2026-01-02"), pd.NaT],
        }
    )
    rows = list(read_conversations(save_pool(frame, str(tmp_path))))
    assert fates(rows) == {1: "ok", 2: "lone_surrogate"}
    assert rows[0].extra == {
        "count": 2**53 + 1,
        "share": 0.1,
        "vector": [1.5, 2.0],
        "when": "2026-01-02T00:00:00",
    }


def test_what_is_no_row(tmp_path):
    assert fates(list(read_conversations([{"prompt": "p", "response": "r"}, [1]]))) == {
        1: "ok",
        2: "malformed_row",
    }
    with pytest.raises(InputError, match="row 1: a value of type set; expected JSON values"):
        save_pool([{"prompt": {1}}], str(tmp_path))
    with pytest.raises(InputError, match="are not unique as texts"):
        save_pool([{1: "a", "1": "b"}], str(tmp_path))
    with pytest.raises(EmptyFile, match="no rows were given"):
        save_pool([], str(tmp_path))
