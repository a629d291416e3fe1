"""The pool artifact: normalised conversations in Parquet, and what could not become one.

    <store>/pools/<digest>/rows-00000.parquet …    every good row in source order, duplicates included
                           quarantine.parquet      every bad one, with its reason and what it was
                           pool.json               written last: counts, formats, digests; a pool without it is not there

Rows are addressed by position (0 for the first good row). Texts are read a row group at a time, so
memory does not grow with the pool.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, StorageError
from deita_tasks.records import Conversation, Quarantined, SourceRow, Turn

VERSION = 2  # of the artifact: another number is another pool

GROUP_ROWS = 1024
GROUP_CHARS = 8_000_000  # a row group is closed at either: what a reader holds at once
FILE_GROUPS = 64

ROWS = pa.schema(
    {
        "id": pa.string(),
        "source_uri": pa.string(),
        "source_row": pa.int64(),
        "turns": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "extra": pa.string(),  # JSON, null for {}
        "n_pairs": pa.int32(),
        "n_turns": pa.int32(),
        "n_words": pa.int64(),
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
INDEX_COLUMNS = ["id", "source_uri", "source_row", "n_pairs", "n_turns", "n_words"]


def pool_uri(store: str, digest: str) -> str:
    """Where the pool with this digest lies."""
    return storage.join(store, "pools", digest)


def write_pool(
    uri: str, rows: Iterable[Conversation | Quarantined], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the pool under `uri`; returns its pool.json:

    {good, quarantined, files: [{name, groups, bytes, sha256}], quarantine: {bytes, sha256},
    **facts}

    `facts` is read after the last row, so the caller may fill it while the rows pass (the formats
    found, say).
    """
    with _PoolWriter(uri) as writer:
        for row in rows:
            if isinstance(row, Conversation):
                writer.add(row)
            else:
                writer.put_aside(row)
    described = [
        {"name": name, "groups": groups, **storage.describe(storage.join(uri, name))}
        for name, groups in writer.files
    ]
    aside = storage.describe(storage.join(uri, "quarantine.parquet"))
    summary = {
        **facts,
        "version": VERSION,
        "good": writer.good,
        "quarantined": writer.bad,
        "files": described,
        "quarantine": aside,
    }
    storage.write_json(storage.join(uri, "pool.json"), summary)
    return summary


class _PoolWriter:
    """Writes row groups of bounded size, and a new file every FILE_GROUPS of them."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.files: list[tuple[str, list[int]]] = []
        self.good = self.bad = 0
        self._rows: list[dict[str, Any]] = []
        self._chars = 0
        self._quarantine: list[dict[str, Any]] = []
        self._file = ExitStack()
        self._aside = ExitStack()
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _PoolWriter:
        self._aside_writer = self._aside.enter_context(
            storage.parquet_writer(storage.join(self.uri, "quarantine.parquet"), QUARANTINE)
        )
        return self

    def __exit__(self, *problem: Any) -> None:
        if problem[0] is None:
            self._flush_rows()
            self._flush_aside()
        self._file.__exit__(*problem)
        self._aside.__exit__(*problem)

    def add(self, row: Conversation) -> None:
        extra = json.dumps(row.extra, ensure_ascii=False) if row.extra else None
        self._rows.append(
            {
                "id": row.id,
                "source_uri": row.source.uri,
                "source_row": row.source.row,
                "turns": [{"role": turn.role, "content": turn.content} for turn in row.turns],
                "extra": extra,
                "n_pairs": len(row.pairs),
                "n_turns": len(row.turns),
                "n_words": sum(len(turn.content.split()) for turn in row.turns),
            }
        )
        self._chars += sum(len(turn.role) + len(turn.content) for turn in row.turns) + len(
            extra or ""
        )
        self.good += 1
        if len(self._rows) >= GROUP_ROWS or self._chars >= GROUP_CHARS:
            self._flush_rows()

    def put_aside(self, row: Quarantined) -> None:
        fields = {
            "source_uri": row.source.uri,
            "source_row": row.source.row,
            "reason": row.reason,
            "detail": row.detail,
            "raw": row.raw,
        }
        self._quarantine.append(fields)
        self.bad += 1
        if len(self._quarantine) >= GROUP_ROWS:
            self._flush_aside()

    def _flush_rows(self) -> None:
        if self._writer is None or (self._rows and len(self.files[-1][1]) >= FILE_GROUPS):
            self._file.close()
            name = f"rows-{len(self.files):05d}.parquet"
            self.files.append((name, []))
            self._writer = self._file.enter_context(
                storage.parquet_writer(storage.join(self.uri, name), ROWS)
            )
        if self._rows:
            self._writer.write_table(
                pa.Table.from_pylist(self._rows, schema=ROWS), row_group_size=len(self._rows)
            )
            self.files[-1][1].append(len(self._rows))
        self._rows, self._chars = [], 0

    def _flush_aside(self) -> None:
        if self._quarantine:
            self._aside_writer.write_table(
                pa.Table.from_pylist(self._quarantine, schema=QUARANTINE)
            )
        self._quarantine = []


@dataclass(frozen=True)
class Pool:
    """A pool that is there and whole. `summary` is its pool.json."""

    uri: str
    summary: Mapping[str, Any]

    @classmethod
    def open(cls, uri: str) -> Pool:
        """The pool under `uri`. Raises StorageError where there is none, or one of another version."""
        if not storage.exists(storage.join(uri, "pool.json")):
            raise StorageError(f"{uri}: no pool here; expected a pool.json")
        summary = storage.read_json(storage.join(uri, "pool.json"))
        if summary.get("version") != VERSION:
            raise StorageError(
                f"{uri}: pool of version {summary.get('version')!r}, expected {VERSION}; "
                "load it again"
            )
        return cls(uri, summary)

    @property
    def address(self) -> str:
        """Its URI from any working directory."""
        return storage.filesystem(self.uri)[1] if storage.is_local(self.uri) else self.uri

    def is_intact(self) -> bool:
        """Whether every file is what was written: by sha256 on a local disk, by size where reading
        it all would mean a download.
        """
        files = {
            **{file["name"]: file for file in self.summary["files"]},
            "quarantine.parquet": self.summary["quarantine"],
        }
        return all(
            storage.is_same(storage.join(self.uri, name), facts) for name, facts in files.items()
        )

    def index(self, columns: Sequence[str] = INDEX_COLUMNS) -> pa.Table:
        """Some columns of every good row, in source order; row i is position i. No texts are read."""
        tables = [
            storage.read_table(storage.join(self.uri, file["name"]), list(columns))
            for file in self.summary["files"]
        ]
        return pa.concat_tables(tables).combine_chunks()

    @cached_property
    def distinct(self) -> tuple[pa.Array, NDArray[np.int64]]:
        """What is scored: each id once, and the positions at which they first stand, ascending.
        Read once, for all stages.
        """
        held = self.index(["id"])["id"].combine_chunks()
        positions = first_positions(held)
        return held.take(pa.array(positions)), positions

    def quarantine(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows that could not become a conversation, in source order."""
        return storage.read_table(
            storage.join(self.uri, "quarantine.parquet"), list(columns) if columns else None
        )

    def read(
        self, positions: Sequence[int] | NDArray[np.int64]
    ) -> Iterator[tuple[int, Conversation]]:
        """(position, conversation) for each of `positions`, ascending, each once; one row group in
        memory at a time.
        """
        wanted = np.unique(np.asarray(positions, dtype=np.int64))
        first = 0
        for file in self.summary["files"]:
            here = wanted[(wanted >= first) & (wanted < first + sum(file["groups"]))]
            if len(here):
                with storage.parquet_file(storage.join(self.uri, file["name"])) as parquet:
                    yield from _read_groups(parquet, file["groups"], first, here)
            first += sum(file["groups"])

    def find(self, ids: Sequence[str]) -> dict[str, Conversation]:
        """The conversations with these ids, each as it first stands in the pool. Raises KeyError
        where one is not in it.
        """
        held, first = self.distinct
        where = pc.index_in(pa.array(ids, pa.string()), value_set=held)
        if where.null_count:
            raise KeyError(f"{where.null_count} of {len(where)} ids are not in the pool {self.uri}")
        return {
            conversation.id: conversation for _, conversation in self.read(first[where.to_numpy()])
        }


def _read_groups(
    parquet: pq.ParquetFile, groups: Sequence[int], first: int, wanted: NDArray[np.int64]
) -> Iterator[tuple[int, Conversation]]:
    for number, rows in enumerate(groups):
        here = wanted[(wanted >= first) & (wanted < first + rows)]
        if len(here):
            try:
                table = parquet.read_row_group(number)
            except (pa.ArrowInvalid, OSError) as error:
                raise DamagedArtifact(f"pool rows {first} to {first + rows}: {error}") from error
            for position, fields in zip(here, table.take(here - first).to_pylist(), strict=True):
                yield int(position), _conversation(fields)
        first += rows


def _conversation(fields: Mapping[str, Any]) -> Conversation:
    turns = tuple(Turn(turn["role"], turn["content"]) for turn in fields["turns"])
    extra = json.loads(fields["extra"]) if fields["extra"] else {}
    return Conversation(
        turns, SourceRow(fields["source_uri"], fields["source_row"]), extra, fields["id"]
    )


def first_positions(ids: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Positions of the first row of each distinct id, ascending: what is scored; the others are
    duplicates.
    """
    import pandas as pd

    return np.flatnonzero(~pd.Series(ids.to_pandas()).duplicated().to_numpy()).astype(np.int64)
