"""Scores or vectors that the user provides, in a column.

The column is one of the pool's rows, or of a file that is joined to them. A file is joined

1. by `key`, a column that the file and the pool's rows have;
2. else by its column `id`: a conversation's id, so decisions.parquet of an earlier run can be used
   as it is. If no id in the file looks like one of ours, it is the key;
3. else by `source_row`, the 1-based row in the pool's file, with `source_uri` if the pool has
   several files.

Keys are compared as text, so the number 7 is the same key as the text "7"; "07" is another. Rows of
the pool that share a key share the value. Nothing is imputed: a row without a usable value has
none, and says why.
"""

from __future__ import annotations

import json
import logging
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from deita_tasks import storage
from deita_tasks.components import Component, Fingerprint
from deita_tasks.conversations import Conversation, RowKey
from deita_tasks.errors import InputError, UsageError
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.value_file import Value, open_value_file
from deita_tasks.strict_json import JSON

log = logging.getLogger(__name__)

ID = "id"
CONVERSATION_ID = re.compile("[0-9a-f]{32}")
# Columns that join a file to the pool, the preferred ones first.
KEY_COLUMNS = ([ID], ["source_uri", "source_row"], ["source_row"])

Key: TypeAlias = tuple[str, ...]


class NoValue(Exception):
    """Why a row has no value."""


class RowColumn:
    """The values in a column of the pool's own rows. `pool`: the pool's files."""

    def __init__(self, column: str, pool: Sequence[str]) -> None:
        self.column = column
        self.pool = pool

    def identity(self) -> Fingerprint:
        """Return what the values depend on: the column and the content of the pool's files."""
        return {"column": self.column, "pool": [storage.content_digest(uri) for uri in self.pool]}

    def values(self, conversations: Sequence[Conversation]) -> list[Value | NoValue]:
        """Return the value of each conversation's row, or NoValue, which says why there is none."""
        return [self._value(conversation) for conversation in conversations]

    def _value(self, conversation: Conversation) -> Value | NoValue:
        """Return the value in a conversation's row, or NoValue for no such column or a null."""
        if self.column not in conversation.extra:
            return NoValue(f"its row has no column {self.column!r}")
        value = conversation.extra[self.column]
        if value is None:
            return NoValue(f"its column {self.column!r} is null")
        return value


class JoinedFile:
    """The values in a column of the file `uri`. `pool`: the pool's files.

    key: the column of the pool's rows that is compared with the file's; None for our own ids and
    for source rows. The keys are in memory. Raises InputError for a file that cannot be joined.
    """

    def __init__(self, uri: str, column: str, key: str | None, pool: Sequence[str]) -> None:
        self.uri = uri
        self.column = column
        self.pool = pool
        self._file = open_value_file(uri)
        self._names = self._choose_columns(key)
        self._rows_by_key = self._read_keys()
        self.key = key
        if key is None and self._names == [ID] and not self._has_our_ids():
            self.key = ID
            log.info("%s: joined by the pool's own column `id`; it has no ids of deita", uri)

    def _choose_columns(self, key: str | None) -> list[str]:
        """Return the columns to join by, and check them and the column of values.

        Raises InputError for a missing column, UsageError for source rows that could be of several
        files.
        """
        names = set(self._file.names)
        columns = ", ".join(self._file.names)
        candidates = KEY_COLUMNS if key is None else ([key],)
        usable = [keys for keys in candidates if set(keys) <= names]
        if not usable and key is not None:
            raise InputError(f"{self.uri} has the columns {columns}, but not the key {key!r}")
        if not usable:
            raise InputError(
                f"{self.uri} has the columns {columns}; expected `id`, or `source_row` with or "
                "without `source_uri`, or the name of a column that the pool has too as the key "
                "(scores_key, embeddings_key)"
            )
        if self.column not in names:
            raise InputError(
                f"{self.uri} has the columns {columns}, but no {self.column!r}; name the column"
            )
        if key is None and usable[0] == ["source_row"] and len(self.pool) > 1:
            raise UsageError(
                f"{self.uri}: the pool has {len(self.pool)} files, so `source_row` alone is "
                "ambiguous; add a column `source_uri`"
            )
        return usable[0]

    def _read_keys(self) -> dict[Key, list[int]]:
        """Return the file's rows by key; a row without a key is in none."""
        rows_by_key: dict[Key, list[int]] = {}
        for row, values in enumerate(zip(*self._file.columns(self._names), strict=True)):
            texts = tuple(map(key_text, values))
            if None not in texts:
                rows_by_key.setdefault(texts, []).append(row)  # type: ignore[arg-type]
        return rows_by_key

    def _has_our_ids(self) -> bool:
        """Return whether any id in the file looks like one of deita's, not of the user's own."""
        return any(CONVERSATION_ID.fullmatch(key[0]) for key in self._rows_by_key)

    def identity(self) -> Fingerprint:
        """Return what the values depend on: the content of the file, and of the pool unless joined
        by our ids.
        """
        identity: Fingerprint = {"column": self.column, "file": storage.content_digest(self.uri)}
        if self.key is not None:
            identity["key"] = self.key
        if self.key is not None or self._names != [ID]:
            identity["pool"] = [storage.content_digest(uri) for uri in self.pool]
        return identity

    def values(self, conversations: Sequence[Conversation]) -> list[Value | NoValue]:
        """Return what the file has for each conversation, or NoValue, which says why there is none.

        Several rows of the file may have one key if their values agree. Each row is read once.
        """
        rows = [
            self._rows_by_key.get(self._key(conversation), []) for conversation in conversations
        ]
        wanted = {row for matches in rows for row in matches}
        value_of_row = self._file.values(self.column, wanted)
        return [
            self._agreed_value([value_of_row[row] for row in matches])
            if matches
            else NoValue(self._explain_missing(conversation))
            for conversation, matches in zip(conversations, rows, strict=True)
        ]

    def _agreed_value(self, values: Sequence[Value]) -> Value | NoValue:
        """Return the value on which all rows of a conversation agree; null rows do not count."""
        present = [value for value in values if value is not None]
        if not present:
            return NoValue(f"its {self.column!r} is null in {self.uri}")
        first = present[0]
        if not all(np.array_equal(first, value) for value in present[1:]):  # type: ignore[arg-type]
            return NoValue(
                f"{self.uri} has {len(present)} rows with different {self.column!r} for it"
            )
        return first

    def _key(self, conversation: Conversation) -> Key:
        """Return the key of a conversation; () if it has none."""
        if self.key is not None:
            text = key_text(conversation.extra.get(self.key))
            return () if text is None else (text,)
        if self._names == [ID]:
            return (conversation.id,)
        row = str(conversation.source.row)
        return (row,) if len(self._names) == 1 else (conversation.source.uri, row)

    def _explain_missing(self, conversation: Conversation) -> str:
        """Return why the file has no row for a conversation."""
        if self.key is not None and not self._key(conversation):
            state = "is not a text or a number" if self.key in conversation.extra else "is missing"
            return f"the key {self.key!r} {state} in its row, so {self.uri} has no row for it"
        if self.key is not None:
            example = next(iter(self._rows_by_key), ("nothing",))[0]
            return f"{self.uri} has no row with its {self.key!r}; an example there is {example!r}"
        own_id = key_text(conversation.extra.get(ID))
        if self._names == [ID] and (own_id,) in self._rows_by_key:
            return (
                f"{self.uri} has no row with its deita id, but one with its own `id`: set the key "
                "(scores_key, embeddings_key) to id"
            )
        return f"{self.uri} has no row for it"


def key_text(value: Any) -> str | None:
    """Return the text by which a key is compared; None for what is no key: null, list, object."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if np.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else str(value)
    if value is None or isinstance(value, list | dict):
        return None
    return str(value)


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

    It is a column of the pool's rows, or with `file` one of a file joined to them.
    """

    ROW_KEY: ClassVar[RowKey] = "id"  # rows with the same text may have other values

    column: str | None = Field(None, min_length=1, description="the column; default: the usual one")
    file: str | None = Field(
        None,
        min_length=1,
        description="Parquet, CSV or JSON Lines file joined by key; default: the pool's own rows",
    )
    key: str | None = Field(
        None,
        min_length=1,
        description="column of file and pool that joins them; default: id, else the source row",
    )
    pool: tuple[str, ...] = Field(
        (), description="the pool's files; their content is part of the fingerprint"
    )

    _opened: Lazy[RowColumn | JoinedFile] = PrivateAttr(default_factory=Lazy)

    @model_validator(mode="after")
    def _check_file(self) -> Self:
        """Refuse a file that cannot be joined before anything else is done."""
        if self.key is not None and self.file is None:
            raise UsageError(f"key = {self.key!r} without a file: expected a file to join by it")
        self._source()
        return self

    @abstractmethod
    def _default_columns(self) -> DefaultColumns:
        """Return the columns to read if the user names none; they depend on what is read."""

    def _source(self) -> RowColumn | JoinedFile:
        """Return the opened source of values; a file's keys are read once and stay in memory."""
        return self._opened.get(self._open)

    def _open(self) -> RowColumn | JoinedFile:
        """Return the source of values, the keys of a file read. Raises what JoinedFile raises."""
        default = self._default_columns()
        if self.file is None:
            return RowColumn(self.column or default.in_rows, self.pool)
        return JoinedFile(self.file, self.column or default.in_file, self.key, self.pool)

    def release(self) -> None:
        """Close the file; it is opened again when needed."""
        self._opened.release()
