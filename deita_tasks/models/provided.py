"""What the user brings: scores or vectors in a column of the pool's rows, or of a Parquet file that
is joined to them.

A file is joined by its column `id` (a conversation's id, as decisions.parquet of an earlier run has
it: such a file can be given as it is), or else by `source_row`, the 1-based row of the pool's file,
with `source_uri` where the pool has several. Nothing is imputed: a row without a value, or with one
that will not do, has none, and says why.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field, PrivateAttr, model_validator

from deita_tasks import storage
from deita_tasks.components import Component
from deita_tasks.errors import DamagedArtifact, InputError, MissingFile, UsageError
from deita_tasks.models.lazy import Lazy
from deita_tasks.records import Conversation


class NoValue(Exception):
    """Why a row has no value."""


class RowColumn:
    """Values in the column `column` of the pool's own rows; `pool`: the pool's files."""

    def __init__(self, column: str, pool: Sequence[str]) -> None:
        self.column, self.pool = column, pool

    def identity(self) -> dict[str, Any]:
        """What the values are, for a fingerprint: the column of files with this content."""
        return {"column": self.column, "pool": [storage.content_digest(uri) for uri in self.pool]}

    def values(self, conversations: Sequence[Conversation]) -> list[Any]:
        """For each conversation what its row says, or NoValue."""
        absent = NoValue(f"its row has no column {self.column!r}")
        null = NoValue(f"its column {self.column!r} is null")
        return [absent if self.column not in one.extra else null if one.extra[self.column] is None else one.extra[self.column]
                for one in conversations]  # fmt: skip


class JoinedFile:
    """Values in the column `column` of the Parquet file `uri`; `pool`: the pool's files.

    The keys are held in memory, the values a row group at a time. Raises InputError for a file that
    is not fit to be joined.
    """

    def __init__(self, uri: str, column: str, pool: Sequence[str]) -> None:
        self.uri, self.column, self.pool = uri, column, pool
        try:
            with storage.parquet_file(uri) as parquet:
                names = parquet.schema_arrow.names
                self._starts = np.cumsum(
                    [
                        0,
                        *(
                            parquet.metadata.row_group(group).num_rows
                            for group in range(parquet.num_row_groups)
                        ),
                    ]
                )
        except (MissingFile, DamagedArtifact) as error:
            raise InputError(f"{error}; expected a Parquet file of scores or vectors") from error
        self.keys = next(
            (
                keys
                for keys in (["id"], ["source_uri", "source_row"], ["source_row"])
                if set(keys) <= set(names)
            ),
            [],
        )
        if not self.keys:
            raise InputError(
                f"{uri}: has the columns {', '.join(names)}; expected `id`, or `source_row` "
                "with or without `source_uri`"
            )
        if column not in names:
            raise InputError(
                f"{uri}: has the columns {', '.join(names)}, and no {column!r}; name the right one"
            )
        if self.keys == ["source_row"] and len(pool) > 1:
            raise UsageError(
                f"{uri}: `source_row` alone does not tell the {len(pool)} files of the pool "
                "apart; add a column `source_uri`"
            )
        self._rows: dict[Hashable, list[int]] | None = None
        self._group: tuple[int, pa.ChunkedArray] | None = None

    def identity(self) -> dict[str, Any]:
        """What the values are, for a fingerprint: the file's content, and where it is joined by row
        the pool's too.
        """
        found: dict[str, Any] = {"column": self.column, "file": storage.content_digest(self.uri)}
        return (
            found
            if self.keys == ["id"]
            else {**found, "pool": [storage.content_digest(uri) for uri in self.pool]}
        )

    def values(self, conversations: Sequence[Conversation]) -> list[Any]:
        """For each conversation what the file says of it, or NoValue."""
        rows = self._places()
        found: dict[int, list[Any]] = {}
        wanted = sorted(
            (row, i) for i, one in enumerate(conversations) for row in rows.get(self._key(one), ())
        )
        for row, i in wanted:
            value = self._value(row)
            if value is not None:
                found.setdefault(i, []).append(value)
        return [
            self._one(found.get(i, []), bool(rows.get(self._key(one))))
            for i, one in enumerate(conversations)
        ]

    def _one(self, values: list[Any], there: bool) -> Any:
        if not values:
            return NoValue(
                f"its {self.column!r} is null in {self.uri}"
                if there
                else f"no row of {self.uri} is of it"
            )
        if any(not np.array_equal(values[0], other) for other in values[1:]):
            return NoValue(
                f"{len(values)} rows of {self.uri} give it a {self.column!r}, and not the same"
            )
        return values[0]

    def _key(self, one: Conversation) -> Hashable:
        return (
            one.id
            if self.keys == ["id"]
            else one.source.row
            if self.keys == ["source_row"]
            else (one.source.uri, one.source.row)
        )

    def _places(self) -> dict[Hashable, list[int]]:
        """Key -> the rows of the file that have it."""
        if self._rows is None:
            table = storage.read_table(self.uri, self.keys).to_pandas()
            keys = (
                table[self.keys[0]]
                if len(self.keys) == 1
                else pd.Series(list(zip(*(table[name] for name in self.keys), strict=True)))
            )
            self._rows = {key: list(places) for key, places in keys.groupby(keys).indices.items()}
        return self._rows

    def _value(self, row: int) -> Any:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if self._group is None or self._group[0] != group:
            self._group = None  # one at a time
            with storage.parquet_file(self.uri) as parquet:
                self._group = (
                    group,
                    parquet.read_row_group(group, columns=[self.column])[self.column],
                )
        value = self._group[1][row - int(self._starts[group])]
        if not value.is_valid:
            return None
        is_list = isinstance(value, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar)
        return value.values.to_numpy(zero_copy_only=False) if is_list else value.as_py()


class ProvidedComponent(Component):
    """Options: a column of the pool's rows, or with `file` one of a Parquet file that is joined to
    them.
    """

    column: str | None = Field(None, min_length=1, description="the column; default: the usual one")
    file: str | None = Field(
        None,
        min_length=1,
        description="Parquet file joined by id or by source row; default: the pool's own rows",
    )
    pool: tuple[str, ...] = Field(
        (), description="the pool's files: their content is part of what the values are"
    )

    _held: Lazy[RowColumn | JoinedFile] = PrivateAttr(default_factory=Lazy)

    @model_validator(mode="after")
    def _opened(self) -> Self:
        """A file that is not fit is told here, before anything else is done."""
        self._source()
        return self

    @abstractmethod
    def _usual(self) -> tuple[str, str]:
        """The usual column in the pool's rows, and in a file."""

    def _source(self) -> RowColumn | JoinedFile:
        return self._held.get(self._open)

    def _open(self) -> RowColumn | JoinedFile:
        in_rows, in_file = self._usual()
        if self.file is None:
            return RowColumn(self.column or in_rows, self.pool)
        return JoinedFile(self.file, self.column or in_file, self.pool)

    def release(self) -> None:
        """Closes the file; it is opened again when it is needed."""
        self._held.release()
