"""Scores or vectors that the user provides, in a column.

The column is one of the pool's rows, or of a Parquet file that is joined to them. A file is joined
by its column `id`, a conversation's id, so decisions.parquet of an earlier run can be used as it
is; else by `source_row`, the 1-based row in the pool's file, with `source_uri` if the pool has
several files. Nothing is imputed: a row without a usable value has none, and says why.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, model_validator

from deita_tasks import storage
from deita_tasks.components import Component, Fingerprint
from deita_tasks.errors import DamagedArtifact, InputError, MissingFile, UsageError
from deita_tasks.models.lazy import Lazy
from deita_tasks.records import Conversation
from deita_tasks.strict_json import JSON

# Columns that join a file to the pool, the preferred ones first.
KEY_COLUMNS = (["id"], ["source_uri", "source_row"], ["source_row"])


class NoValue(Exception):
    """Why a row has no value."""


Value: TypeAlias = "JSON | NDArray[Any]"


class RowColumn:
    """The values in a column of the pool's own rows. `pool`: the pool's files."""

    def __init__(self, column: str, pool: Sequence[str]) -> None:
        self.column = column
        self.pool = pool

    def identity(self) -> Fingerprint:
        """Return what the values depend on: the column and the content of the pool's files."""
        return {"column": self.column, "pool": [storage.content_digest(uri) for uri in self.pool]}

    def values(self, conversations: Sequence[Conversation]) -> list[Value | NoValue]:
        """Return the value of each conversation's row, or NoValue."""
        return [self._value(conversation) for conversation in conversations]

    def _value(self, conversation: Conversation) -> Value | NoValue:
        if self.column not in conversation.extra:
            return NoValue(f"its row has no column {self.column!r}")
        value = conversation.extra[self.column]
        if value is None:
            return NoValue(f"its column {self.column!r} is null")
        return value


class JoinedFile:
    """The values in a column of the Parquet file `uri`. `pool`: the pool's files.

    The keys are in memory, the values one row group at a time. Raises InputError for a file that
    cannot be joined.
    """

    def __init__(self, uri: str, column: str, pool: Sequence[str]) -> None:
        self.uri = uri
        self.column = column
        self.pool = pool
        try:
            with storage.parquet_file(uri) as parquet:
                names: list[str] = parquet.schema_arrow.names
                self._group_starts = _group_starts(parquet)
        except (MissingFile, DamagedArtifact) as error:
            raise InputError(f"{error}; expected a Parquet file of scores or vectors") from error
        self.keys = self._choose_keys(names)
        self._rows_by_key: dict[Hashable, list[int]] | None = None
        self._group: tuple[int, pa.ChunkedArray] | None = None

    def _choose_keys(self, names: Sequence[str]) -> list[str]:
        """Return the columns to join by, and check them and the column of values."""
        usable = [keys for keys in KEY_COLUMNS if set(keys) <= set(names)]
        columns = ", ".join(names)
        if not usable:
            raise InputError(
                f"{self.uri} has the columns {columns}; expected `id`, or `source_row` with or "
                "without `source_uri`"
            )
        if self.column not in names:
            raise InputError(
                f"{self.uri} has the columns {columns}, but no {self.column!r}; name the column"
            )
        keys = usable[0]
        if keys == ["source_row"] and len(self.pool) > 1:
            raise UsageError(
                f"{self.uri}: the pool has {len(self.pool)} files, so `source_row` alone is "
                "ambiguous; add a column `source_uri`"
            )
        return keys

    def identity(self) -> Fingerprint:
        """Return what the values depend on: the file's content, and the pool's if joined by row."""
        identity: Fingerprint = {
            "column": self.column,
            "file": storage.content_digest(self.uri),
        }
        if self.keys != ["id"]:
            identity["pool"] = [storage.content_digest(uri) for uri in self.pool]
        return identity

    def values(self, conversations: Sequence[Conversation]) -> list[Value | NoValue]:
        """Return what the file has for each conversation, or NoValue."""
        rows_by_key = self._read_keys()
        rows = [rows_by_key.get(self._key(conversation), []) for conversation in conversations]
        value_of_row = self._read_values({row for matches in rows for row in matches})
        return [
            self._agreed_value(matches, [value_of_row[row] for row in matches]) for matches in rows
        ]

    def _agreed_value(self, rows: Sequence[int], values: Sequence[Value]) -> Value | NoValue:
        """Return the value on which all rows of a conversation agree; null rows do not count."""
        if not rows:
            return NoValue(f"{self.uri} has no row for it")
        present = [value for value in values if value is not None]
        if not present:
            return NoValue(f"its {self.column!r} is null in {self.uri}")
        first = present[0]
        if not all(np.array_equal(first, value) for value in present[1:]):  # type: ignore[arg-type]
            return NoValue(
                f"{self.uri} has {len(present)} rows with different {self.column!r} for it"
            )
        return first

    def _key(self, conversation: Conversation) -> Hashable:
        if self.keys == ["id"]:
            return conversation.id
        if self.keys == ["source_row"]:
            return conversation.source.row
        return (conversation.source.uri, conversation.source.row)

    def _read_keys(self) -> dict[Hashable, list[int]]:
        """Return the file's rows by key."""
        if self._rows_by_key is None:
            table = storage.read_table(self.uri, self.keys).to_pandas()
            if len(self.keys) == 1:
                keys = table[self.keys[0]]
            else:
                keys = pd.Series(list(zip(*(table[name] for name in self.keys), strict=True)))
            groups = keys.groupby(keys).indices
            self._rows_by_key = {key: list(rows) for key, rows in groups.items()}
        return self._rows_by_key

    def _read_values(self, rows: Iterable[int]) -> dict[int, Value]:
        """Return the values of some rows, read in the file's order."""
        return {row: self._read_value(row) for row in sorted(rows)}

    def _read_value(self, row: int) -> Value:
        group = bisect_right(self._group_starts, row) - 1
        if self._group is None or self._group[0] != group:
            self._group = None  # free the last group before reading the next
            with storage.parquet_file(self.uri) as parquet:
                table = parquet.read_row_group(group, columns=[self.column])
            self._group = (group, table[self.column])
        scalar = self._group[1][row - self._group_starts[group]]
        if not scalar.is_valid:
            return None
        value: Value
        if isinstance(scalar, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar):
            value = scalar.values.to_numpy(zero_copy_only=False)
        else:
            value = scalar.as_py()
        return value


def _group_starts(parquet: pq.ParquetFile) -> list[int]:
    """Return the first row of each row group, and the number of rows."""
    groups = range(parquet.num_row_groups)
    sizes = [parquet.metadata.row_group(group).num_rows for group in groups]
    return list(accumulate(sizes, initial=0))


def parse_value(value: Value | NoValue, expected: str) -> Value:
    """Return a value; text is parsed as JSON, which CSV files have for lists.

    Raises NoValue if there is none. `expected`: what the text should have been.
    """
    if isinstance(value, NoValue):
        raise value
    if not isinstance(value, str):
        return value
    try:
        parsed: JSON = json.loads(value)
    except ValueError:
        raise NoValue(f"{value[:40]!r} is not {expected}") from None
    return parsed


class DefaultColumns(NamedTuple):
    """The column of values if the user names none: in the pool's rows, and in a file."""

    in_rows: str
    in_file: str


class ProvidedComponent(Component):
    """Base class of components that read values from a column.

    It is a column of the pool's rows, or with `file` one of a Parquet file joined to them.
    """

    column: str | None = Field(None, min_length=1, description="the column; default: the usual one")
    file: str | None = Field(
        None,
        min_length=1,
        description="Parquet file joined by id or by source row; default: the pool's own rows",
    )
    pool: tuple[str, ...] = Field(
        (), description="the pool's files; their content is part of the fingerprint"
    )

    _opened: Lazy[RowColumn | JoinedFile] = PrivateAttr(default_factory=Lazy)

    @model_validator(mode="after")
    def _check_file(self) -> Self:
        """Refuse a file that cannot be joined before anything else is done."""
        self._source()
        return self

    @abstractmethod
    def _default_columns(self) -> DefaultColumns:
        """Return the columns to read if the user names none."""

    def _source(self) -> RowColumn | JoinedFile:
        """Return the opened source of values."""
        return self._opened.get(self._open)

    def _open(self) -> RowColumn | JoinedFile:
        default = self._default_columns()
        if self.file is None:
            return RowColumn(self.column or default.in_rows, self.pool)
        return JoinedFile(self.file, self.column or default.in_file, self.pool)

    def release(self) -> None:
        """Close the file; it is opened again when needed."""
        self._opened.release()
