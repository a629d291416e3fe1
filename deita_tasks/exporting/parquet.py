"""Parquet: a column of messages, and the input's columns in types that hold them exactly."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from deita_tasks import storage
from deita_tasks.exporting.arrow import as_column, settled
from deita_tasks.exporting.base import ADDED, Columns, Exporter, Survey
from deita_tasks.records import Conversation

if TYPE_CHECKING:
    from deita_tasks.manifest import Manifest

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
ROWS_A_GROUP = 2_000


class Parquet(Exporter):
    """selected.parquet: `messages`, a list of {role, content}, and every input column; holds every
    conversation.

    An input column of one type (numbers, texts, lists of them, objects that all have the same keys)
    is stored in that type; any other as JSON text. Parquet knows no absent values: a column that a
    row did not have is null there.
    """

    name: ClassVar[str] = "parquet"
    own_columns: ClassVar[tuple[str, ...]] = ("messages",)

    def columns(self, conversation: Conversation, survey: Survey) -> Columns:
        return Columns(
            {
                "messages": [
                    {"role": turn.role, "content": turn.content} for turn in conversation.turns
                ]
            },
            conversation.extra,
        )

    def write(
        self,
        rows: Iterable[dict[str, Any]],
        survey: Survey,
        folder: Path,
        manifest: Manifest | None,
    ) -> list[Path]:
        path = folder / "selected.parquet"
        write_rows(rows, column_types(survey), path)
        return [path]


def column_types(survey: Survey) -> dict[str, pa.DataType | None]:
    """The columns of the file in order, each with its type; None for one that is stored as JSON
    text.
    """
    types: dict[str, pa.DataType | None] = {"messages": MESSAGES}
    types.update((survey.renamed.get(name, name), kind) for name, kind in survey.types.items())
    types.update((survey.added[name], kind) for name, kind in ADDED.items() if name in survey.added)
    return types


def write_rows(
    rows: Iterable[dict[str, Any]], types: dict[str, pa.DataType | None], path: Path
) -> None:
    """Writes `rows` to one Parquet file, a few thousand at a time."""
    schema = pa.schema([(name, settled(kind)) for name, kind in types.items()])
    waiting = iter(rows)
    with storage.parquet_writer(str(path), schema) as writer:
        while group := list(islice(waiting, ROWS_A_GROUP)):
            arrays = [
                as_column([row.get(name) for row in group], kind) for name, kind in types.items()
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
