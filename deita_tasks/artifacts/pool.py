"""The pool artifact: normalised conversations in Parquet, and the rows that are not conversations.

    <store>/pools/<digest>/
        rows-00000.parquet …   every good row in source order, duplicates included
        quarantine.parquet     every bad row, with its reason and its raw text
        cuts.parquet           of a pool of cut rows: those that are (see `results.cut_pool`)
        pool.json              counts, formats, digests; written last, so no pool is half there

A position addresses a row (0 for the first good row). Texts are read one row group at a time, so
memory does not grow with the pool.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import NonNegativeInt

from deita_tasks import storage
from deita_tasks.artifacts.row_layout import restore_row
from deita_tasks.conversations import Conversation, RowKey, SourceRow, Turn
from deita_tasks.errors import DamagedArtifact, MissingFile, StorageError
from deita_tasks.manifest import InputFile
from deita_tasks.selecting.arrays import Indices
from deita_tasks.storage import FileInfo
from deita_tasks.strict_json import JSON, JsonRecord

VERSION = 3  # of the artifact; pools of another version are loaded anew

POOL_FILE = "pool.json"
QUARANTINE_FILE = "quarantine.parquet"
CUTS_FILE = "cuts.parquet"

# fields: JSON, null for {}
TURN = pa.struct({"role": pa.string(), "content": pa.string(), "fields": pa.string()})
ROWS = pa.schema(
    {
        "id": pa.string(),
        "source_uri": pa.string(),
        "source_row": pa.int64(),
        "text_id": pa.string(),  # null where it is the id
        "turns": pa.list_(TURN),
        "tools": pa.string(),  # JSON, null for none
        "extra": pa.string(),  # JSON, null for {}
        "layout": pa.string(),  # see row_layout.py
        "n_pairs": pa.int32(),
        "n_unanswered": pa.int32(),
        "n_media": pa.int32(),
        "n_turns": pa.int32(),
        "n_words": pa.int64(),
        "language": pa.string(),  # see languages.py
    }
)
QUARANTINE = pa.schema(
    {
        "source_uri": pa.string(),
        "source_row": pa.int64(),
        "reason": pa.string(),
        "detail": pa.string(),
        "raw": pa.string(),
    }
)
CUTS = pa.schema(
    {
        "position": pa.int64(),  # of a row that was cut at a turn, ascending
        "whole_id": pa.string(),  # the id of the whole conversation
        "cut_turns": pa.int32(),  # the turns that were left out, at the end
    }
)
INDEX_COLUMNS = ["id", "source_uri", "source_row", "n_pairs", "n_turns", "n_words"]


class PoolFile(FileInfo):
    """A file of good rows. groups: the rows of each of its row groups."""

    name: str
    groups: list[NonNegativeInt]


class PoolSummary(JsonRecord):
    """pool.json. whole: of a pool of cut rows, the digest of the pool that it was made of."""

    version: int
    inputs: list[InputFile]
    good: NonNegativeInt
    quarantined: NonNegativeInt
    files: list[PoolFile]
    quarantine: FileInfo
    whole: str | None = None
    cuts: FileInfo | None = None

    @property
    def rows(self) -> int:
        """Rows read, good and bad."""
        return self.good + self.quarantined

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values; without what only pools of cut rows have."""
        fields = super().to_dict()
        return {name: value for name, value in fields.items() if value is not None}

    def file_infos(self) -> dict[str, FileInfo]:
        """Return what each file of the pool was when it was written, by name."""
        infos: dict[str, FileInfo] = {file.name: file for file in self.files}
        infos[QUARANTINE_FILE] = self.quarantine
        return infos if self.cuts is None else {**infos, CUTS_FILE: self.cuts}


def pool_uri(store: str, digest: str) -> str:
    """Return where the pool with this digest lies: <store>/pools/<digest>."""
    return storage.join(store, "pools", digest)


def read_summary(uri: str) -> PoolSummary:
    """Return the pool.json of the pool under `uri`.

    Raises StorageError where there is none, or it has another version.
    """
    place = storage.join(uri, POOL_FILE)
    try:
        fields = storage.read_json(place)
    except MissingFile as error:
        raise StorageError(f"{uri}: no pool here; expected a {POOL_FILE}") from error
    version = None
    if isinstance(fields, dict):
        version = fields.get("version")
    if version != VERSION:
        raise StorageError(f"{uri}: pool of version {version!r}, expected {VERSION}; load it again")
    return storage.as_record(place, fields, PoolSummary)


@dataclass(frozen=True)
class Pool:
    """A complete pool. `summary` is its pool.json.

    excluded: the ids of the rows that filters left out; they are no distinct rows to compute or to
    select, but stand in the index like any others.
    """

    uri: str
    summary: PoolSummary
    excluded: pa.Array | None = field(default=None, compare=False)

    @classmethod
    def open(cls, uri: str) -> Pool:
        """Open the pool under `uri`.

        Raises StorageError where there is none, or it has another version.
        """
        return cls(uri, read_summary(uri))

    @property
    def digest(self) -> str:
        """The name of the pool in its store."""
        return self.uri.rsplit("/", 1)[1]

    def is_intact(self) -> bool:
        """Return whether every file is the one that was written (see `storage.is_same`).

        Compares the digest on a local disk, elsewhere the size alone.
        """
        return storage.are_same(self.uri, self.summary.file_infos())

    def index(self, columns: Sequence[str] = INDEX_COLUMNS) -> pa.Table:
        """Return some columns of every good row, in source order; row i has position i.

        Reads no texts.
        """
        schema = pa.schema([ROWS.field(name) for name in columns])
        tables = []
        for file in self.summary.files:
            place = storage.checked_file(self.uri, file.name, file)
            tables.append(storage.read_table(place, columns, schema))
        return pa.concat_tables(tables).combine_chunks()

    def scan(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield some columns of every good row in source order, one row group at a time.

        Raises MissingFile or DamagedArtifact.
        """
        for file in self.summary.files:
            place = storage.checked_file(self.uri, file.name, file)
            with storage.parquet_file(place) as parquet:
                for number in range(len(file.groups)):
                    yield parquet.read_row_group(number, columns=list(columns))

    @cached_property
    def cuts(self) -> pa.Table:
        """The rows that were cut at a turn (CUTS), empty for a pool of whole rows."""
        if self.summary.cuts is None:
            return CUTS.empty_table()
        place = storage.checked_file(self.uri, CUTS_FILE, self.summary.cuts)
        return storage.read_table(place, schema=CUTS)

    def with_cuts(self, rows: pa.Table) -> pa.Table:
        """Return a table of every good row, in source order, with cut_turns and whole_id.

        Both are null for a row that was not cut.
        """
        cuts = self.cuts
        of_row = np.full(len(rows), -1, np.int64)
        of_row[cuts["position"].to_numpy()] = np.arange(len(cuts))
        places = pa.array(of_row, mask=of_row < 0)
        for name in ("cut_turns", "whole_id"):
            rows = rows.append_column(CUTS.field(name), cuts[name].take(places))
        return rows

    def without(self, excluded: pa.Array) -> Pool:
        """Return the pool without the rows of these ids among its distinct rows."""
        return Pool(self.uri, self.summary, excluded)

    @cached_property
    def every_distinct(self) -> tuple[pa.Array, Indices]:
        """Each id of the pool once, excluded or not, and its first position: int64, ascending."""
        ids = self.index(["id"])["id"].combine_chunks()
        positions = first_positions(ids)
        distinct_ids = ids.take(pa.array(positions))
        return distinct_ids, positions

    @cached_property
    def distinct(self) -> tuple[pa.Array, Indices]:
        """The distinct rows that are not excluded: each id once, and its first position, ascending.

        Read once, for all stages.
        """
        ids, positions = self.every_distinct
        if self.excluded is None or not len(self.excluded):
            return ids, positions
        is_left = pc.invert(pc.is_in(ids, value_set=self.excluded))
        return ids.filter(is_left), positions[is_left.to_numpy(zero_copy_only=False)]

    @cached_property
    def text_ids(self) -> pa.Array:
        """The text id of each distinct row; the array of their ids itself where none differs."""
        ids, positions = self.distinct
        column = self.index(["text_id"])["text_id"].combine_chunks()
        text_ids = column.take(pa.array(positions))
        if text_ids.null_count == len(ids):
            return ids
        return pc.coalesce(text_ids, ids)

    def distinct_by(self, row_key: RowKey) -> tuple[pa.Array, Indices]:
        """Return the rows to compute: each key once, and its first position: int64, ascending.

        Excluded rows are left out. There are fewer text ids than ids where rows share their text.
        """
        ids, positions = self.distinct
        if row_key == "id" or self.text_ids is ids:
            return ids, positions
        first = first_positions(self.text_ids)
        keys = self.text_ids.take(pa.array(first))
        return keys, positions[first]

    def keys_of(self, ids: pa.Array | pa.ChunkedArray, row_key: RowKey) -> pa.Array:
        """Return the key of each of `ids`, by which parts hold its value; null if not in the pool.

        Several ids may have the same key.
        """
        distinct_ids, _ = self.distinct
        if row_key == "id" or self.text_ids is distinct_ids:
            return ids
        rows = pc.index_in(ids, value_set=distinct_ids)
        return self.text_ids.take(rows)

    def quarantine(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the bad rows in source order: `columns`, by default all of QUARANTINE.

        Raises MissingFile or DamagedArtifact.
        """
        columns = columns or QUARANTINE.names
        schema = pa.schema([QUARANTINE.field(name) for name in columns])
        place = storage.checked_file(self.uri, QUARANTINE_FILE, self.summary.quarantine)
        return storage.read_table(place, columns, schema)

    def read(self, positions: Sequence[int] | Indices) -> Iterator[tuple[int, Conversation]]:
        """Yield (position, conversation) for each of `positions`, ascending, each once.

        Holds one row group in memory at a time. Raises DamagedArtifact if a file has other rows.
        """
        ascending = np.unique(np.asarray(positions, dtype=np.int64))
        start = 0
        for file in self.summary.files:
            end = start + sum(file.groups)
            in_file = ascending[(ascending >= start) & (ascending < end)]
            if len(in_file):
                place = storage.checked_file(self.uri, file.name, file)
                with storage.parquet_file(place) as parquet:
                    yield from _read_groups(parquet, file.groups, start, in_file)
            start = end

    def read_shard(self, plan: pa.Table, row_key: RowKey) -> dict[str, Conversation]:
        """Return the conversations at the positions of `plan` (id, position), in pool order.

        They are by key, which is the plan's id. Raises DamagedArtifact if they have other keys.
        """
        positions = plan["position"].to_pylist()
        ids = plan["id"].to_pylist()
        keys = dict(zip(positions, ids, strict=True))
        rows = {}
        for position, conversation in self.read(positions):
            key = getattr(conversation, row_key)
            if key != keys[position]:
                raise DamagedArtifact(
                    f"{self.uri}: row {position} is {key}, where the plan has "
                    f"{keys[position]}; run again"
                )
            rows[key] = conversation
        return rows

    def find(self, ids: Sequence[str]) -> dict[str, Conversation]:
        """Return the conversations with these ids, each as it first stands in the pool.

        Raises KeyError for an id that is not in the pool.
        """
        distinct_ids, positions = self.every_distinct
        wanted_ids = pa.array(ids, pa.string())
        places = pc.index_in(wanted_ids, value_set=distinct_ids)
        if places.null_count:
            raise KeyError(
                f"{places.null_count} of {len(places)} ids are not in the pool {self.uri}"
            )
        rows = self.read(positions[places.to_numpy()])
        return {conversation.id: conversation for _, conversation in rows}


def _read_groups(
    parquet: pq.ParquetFile, groups: Sequence[int], start: int, positions: Indices
) -> Iterator[tuple[int, Conversation]]:
    """Yield (position, conversation) of some rows of a file whose first row is `start`.

    Raises DamagedArtifact if a row group holds another number of rows or other columns.
    """
    for number, rows in enumerate(groups):
        end = start + rows
        in_group = positions[(positions >= start) & (positions < end)]
        if len(in_group):
            group = _read_group(parquet, number, start, end)
            table = group.take(in_group - start)
            for position, fields in zip(in_group, table.to_pylist(), strict=True):
                yield int(position), _conversation(fields)
        start = end


def _read_group(parquet: pq.ParquetFile, number: int, start: int, end: int) -> pa.Table:
    """Return a row group. Raises DamagedArtifact if it does not hold the rows start to end."""
    table = parquet.read_row_group(number)
    table.validate(full=True)
    if not table.schema.equals(ROWS) or table.num_rows != end - start:
        raise DamagedArtifact(f"pool rows {start} to {end}: {table.num_rows} rows of another table")
    return table


def _conversation(fields: Mapping[str, Any]) -> Conversation:
    """Return the conversation of a row of ROWS."""
    turns = tuple(
        Turn(turn["role"], turn["content"], _json_object(turn["fields"]))
        for turn in fields["turns"]
    )
    source = SourceRow(fields["source_uri"], fields["source_row"])
    extra = _json_object(fields["extra"])
    tools = json.loads(fields["tools"]) if fields["tools"] else None
    row = restore_row(fields["layout"], turns, extra)
    return Conversation(turns, source, extra, tools, row, fields["id"])


def _json_object(text: str | None) -> dict[str, JSON]:
    """Return a column of JSON text as an object; {} for null."""
    return json.loads(text) if text else {}


def first_positions(ids: pa.ChunkedArray | pa.Array) -> Indices:
    """Return the position of the first row of each id, ascending; the others are duplicates.

    int64, one a distinct id.
    """
    series = pd.Series(ids.to_pandas())
    repeated = series.duplicated().to_numpy()
    return np.flatnonzero(~repeated).astype(np.int64)
