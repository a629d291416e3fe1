"""What every output format does, for each name in FORMATS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deita_tasks.errors import UsageError
from deita_tasks.exporting import FORMATS, load_exporter
from deita_tasks.exporting.base import SCORE_COLUMNS, ExportRow
from tests.support.report_data import SECOND, SINGLE, conversation, rows

pytestmark = pytest.mark.parametrize("name", FORMATS)

SELECTED = rows(SINGLE, SECOND)


def written_rows(paths: list[Path]) -> list[dict[str, Any]]:
    """The rows of an export, by the plain readers of JSON and of Parquet."""
    data = paths[0]
    if data.suffix == ".parquet":
        table: list[dict[str, Any]] = pq.read_table(data).to_pylist()
        return table
    return [json.loads(line) for line in data.read_bytes().split(b"\n")[:-1]]


def test_it_knows_its_name_in_the_table(name: str) -> None:
    assert load_exporter(name).name == name


def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"output format '{name}': unknown option 'score'"):
        load_exporter(name, score=False)


def test_it_returns_the_files_that_it_writes(name: str, tmp_path: Path) -> None:
    paths = load_exporter(name).export(SELECTED, tmp_path)
    assert sorted(paths) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_a_row_has_its_own_the_input_s_and_the_score_columns(name: str, tmp_path: Path) -> None:
    exporter = load_exporter(name)
    written = written_rows(exporter.export(SELECTED, tmp_path))
    own = set(exporter.own_columns) - set(exporter.optional_columns)
    for row, line in zip(SELECTED, written, strict=True):
        assert own <= line.keys()
        assert line["id"] == row.conversation.extra["id"]
        assert line["tags"] == row.conversation.extra["tags"]
        scores = (row.conversation.id, row.evol_score, row.rank)
        assert tuple(line[column] for column in SCORE_COLUMNS) == scores


def test_score_columns_can_be_left_out(name: str, tmp_path: Path) -> None:
    written = written_rows(load_exporter(name, scores=False).export(SELECTED, tmp_path))
    assert not any(SCORE_COLUMNS.keys() & line.keys() for line in written)


def test_a_row_without_evol_score_or_rank_has_nulls(name: str, tmp_path: Path) -> None:
    (line,) = written_rows(load_exporter(name).export([ExportRow(SINGLE, None, None)], tmp_path))
    assert (line["deita_id"], line["deita_evol_score"], line["deita_rank"]) == (
        SINGLE.id,
        None,
        None,
    )


def test_rows_keep_their_order_and_do_not_depend_on_it(name: str, tmp_path: Path) -> None:
    exporter = load_exporter(name)
    forward = written_rows(exporter.export(SELECTED, tmp_path / "forward"))
    backward = written_rows(exporter.export(SELECTED[::-1], tmp_path / "backward"))
    assert [line["deita_rank"] for line in forward] == [1, 2]
    assert backward == forward[::-1]


def test_input_columns_are_not_overwritten(name: str, tmp_path: Path) -> None:
    """A pool that was selected before has columns of these names."""
    exporter = load_exporter(name)
    reserved = [*exporter.own_columns, *SCORE_COLUMNS]
    earlier = conversation("u: a", "a: b", extra={column: f"old {column}" for column in reserved})
    (line,) = written_rows(exporter.export(rows(earlier), tmp_path))
    assert [line[f"input_{column}"] for column in exporter.own_columns] == [
        f"old {column}" for column in exporter.own_columns
    ]
    assert [line[column] for column in SCORE_COLUMNS] == [
        f"old {column}" for column in SCORE_COLUMNS
    ]
    assert (line["deita_id_2"], line["deita_rank_2"]) == (earlier.id, 1)


def test_the_same_rows_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    exporter = load_exporter(name)
    first = exporter.export(SELECTED, tmp_path / "first")
    second = exporter.export(SELECTED, tmp_path / "second")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_an_empty_selection_gives_an_empty_file(name: str, tmp_path: Path) -> None:
    paths = load_exporter(name).export([], tmp_path)
    assert paths[0].suffix == ".parquet" or paths[0].read_bytes() == b""
    assert written_rows(paths) == []


def test_rows_that_can_be_read_only_once_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected a list or an object whose __iter__ starts again"):
        load_exporter(name).export(iter(SELECTED), tmp_path)
