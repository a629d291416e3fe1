"""Parquet: a column of messages, and the input's columns in types that hold them exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from deita_tasks import storage
from deita_tasks.exporting.arrow import storage_type, to_array
from deita_tasks.exporting.base import SCORE_COLUMNS, Columns, Exporter, OutputRow, Survey
from deita_tasks.records import Conversation

if TYPE_CHECKING:
    from deita_tasks.manifest import Manifest

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
ROWS_PER_GROUP = 2_000


class Parquet(Exporter):
    """selected.parquet: `messages`, a list of {role, content}, and every input column.

    Holds every conversation. An input column with values of one type (numbers, texts, lists of
    them, objects that all have the same keys) is stored in that type; any other one as JSON text.
    Parquet has no absent values: a column that a row does not have is null there. So every column
    takes time and memory in every row group, and there may be at most 10,000.
    """

    name: ClassVar[str] = "parquet"
    max_columns: ClassVar[float] = 10_000  # 3 s; 800,000 took 135 s
    own_columns: ClassVar[tuple[str, ...]] = ("messages",)

    def to_columns(self, conversation: Conversation, survey: Survey) -> Columns:
        messages = [{"role": turn.role, "content": turn.content} for turn in conversation.turns]
        return Columns({"messages": messages}, conversation.extra)

    def write(
        self,
        rows: Iterable[OutputRow],
        survey: Survey,
        folder: Path,
        manifest: Manifest | None,
    ) -> list[Path]:
        path = folder / "selected.parquet"
        write_rows(rows, column_types(survey), path)
        return [path]


def column_types(survey: Survey) -> dict[str, pa.DataType | None]:
    """Return the type of every output column, in order; None if it is stored as JSON text."""
    types: dict[str, pa.DataType | None] = {"messages": MESSAGES}
    for name, column in survey.extra_types.items():
        types[survey.output_name(name)] = column
    for name, output_name in survey.score_names.items():
        types[output_name] = SCORE_COLUMNS[name]
    return types


def write_rows(
    rows: Iterable[OutputRow], types: Mapping[str, pa.DataType | None], path: Path
) -> None:
    """Write `rows` into one Parquet file, holding one row group in memory."""
    schema = pa.schema([(name, storage_type(column)) for name, column in types.items()])
    remaining = iter(rows)
    with storage.parquet_writer(str(path), schema) as writer:
        while group := list(islice(remaining, ROWS_PER_GROUP)):
            arrays = []
            for name, column in types.items():
                values = [row.get(name) for row in group]
                arrays.append(to_array(values, column))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
