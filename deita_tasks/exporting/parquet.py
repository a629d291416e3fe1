"""Parquet: a column of messages, and the input's columns in types that hold them exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from deita_tasks import storage
from deita_tasks.conversations import Conversation, parse_tools
from deita_tasks.exporting.arrow import field_types, infer_type, merge_types, storage_type, to_array
from deita_tasks.exporting.base import (
    CUT_COLUMNS,
    SCORE_COLUMNS,
    Columns,
    Exporter,
    OutputRow,
    Survey,
)
from deita_tasks.models.chat import chat_turns
from deita_tasks.strict_json import JSON

TURN = {"role": pa.string(), "content": pa.string()}
ROWS_PER_GROUP = 2_000


class Parquet(Exporter):
    """selected.parquet: `messages`, `tools` if there are any, and every input column.

    Holds every conversation. A turn has the fields of all turns, such as tool_calls; null where it
    has no such field. Values of one type (numbers, texts, lists of them, objects that all have the
    same keys) are stored in that type; any other ones as JSON text. What a model is shown is exact:
    in turns, tools and media, integers beside doubles are JSON text, and become doubles elsewhere.
    Parquet has no absent values: a column that a row does not have is null there. So every column
    takes time and memory in every row group, and there may be at most 10,000.
    """

    name: ClassVar[str] = "parquet"
    max_columns: ClassVar[float] = 10_000  # 3 s; 800,000 took 135 s
    own_columns: ClassVar[tuple[str, ...]] = ("messages", "tools")
    optional_columns: ClassVar[tuple[str, ...]] = ("tools",)

    def to_columns(self, conversation: Conversation, survey: Survey) -> Columns:
        """Return turns and tools in our own columns, and merge their types into the survey's."""
        messages = chat_turns(conversation)
        tools = parse_tools(conversation.tools)
        for turn in messages:
            turn_type = _merge_turns(survey.own_types.get("messages"), turn)
            survey.own_types["messages"] = turn_type
        known = survey.own_types.get("tools", pa.null())
        inferred = infer_type(tools, pa.int64())
        survey.own_types["tools"] = merge_types(known, inferred)
        own: dict[str, JSON] = {"messages": messages, "tools": tools}
        return Columns(own, conversation.extra)

    def write(self, rows: Iterable[OutputRow], survey: Survey, folder: Path) -> list[Path]:
        """Write the rows in the types that the survey has found."""
        path = folder / "selected.parquet"
        write_rows(rows, column_types(survey), path)
        return [path]


def _merge_turns(known: pa.DataType | None, turn: Mapping[str, JSON]) -> pa.DataType:
    """Return the type of turns with the fields of all turns so far and of `turn`."""
    types = dict(TURN) if known is None else field_types(known)
    for name, value in turn.items():
        earlier = types.get(name, pa.null())
        inferred = infer_type(value, pa.int64())
        types[name] = merge_types(earlier, inferred)
    return pa.struct(list(types.items()))


def column_types(survey: Survey) -> dict[str, pa.DataType]:
    """Return the type of every output column, in order: ours, the input's, then the scores.

    As surveyed: `storage_type` gives those that are written.
    """
    turn_type = survey.own_types.get("messages")
    if turn_type is None:  # no row
        turn_type = pa.struct(list(TURN.items()))
    types = {"messages": pa.list_(turn_type)}
    if "tools" in survey.used_columns:
        types["tools"] = survey.own_types["tools"]
    for name, column in survey.extra_types.items():
        types[survey.output_name(name)] = column
    added = {**SCORE_COLUMNS, **CUT_COLUMNS}
    for name, output_name in survey.score_names.items():
        types[output_name] = added[name]
    return types


def write_rows(rows: Iterable[OutputRow], types: Mapping[str, pa.DataType], path: Path) -> None:
    """Write `rows` into one Parquet file, holding one row group in memory.

    types: of every column; a row without one has null there. The file appears when it is whole.
    """
    fields = [(name, storage_type(column)) for name, column in types.items()]
    schema = pa.schema(fields)
    remaining = iter(rows)
    with storage.parquet_writer(str(path), schema) as writer:
        while group := list(islice(remaining, ROWS_PER_GROUP)):
            arrays = []
            for name, column in types.items():
                values = [row.get(name) for row in group]
                arrays.append(to_array(values, column))
            table = pa.Table.from_arrays(arrays, schema=schema)
            writer.write_table(table)
