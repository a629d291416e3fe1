"""Write the pool artifact, in memory that does not grow with the pool."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from deita_tasks import storage
from deita_tasks.artifacts.pool import (
    CUTS,
    CUTS_FILE,
    POOL_FILE,
    QUARANTINE,
    QUARANTINE_FILE,
    ROWS,
    VERSION,
    PoolFile,
    PoolSummary,
)
from deita_tasks.artifacts.row_layout import layout_of
from deita_tasks.conversations import Conversation, Quarantined
from deita_tasks.languages import detect_language
from deita_tasks.manifest import InputFile
from deita_tasks.storage import FileInfo
from deita_tasks.strict_json import JSON
from deita_tasks.words import count_words

# A row group is closed at either limit: it is what a reader holds in memory at a time.
GROUP_ROWS = 1024
GROUP_CHARS = 8_000_000
FILE_GROUPS = 64


class CutRow(NamedTuple):
    """A row that was cut at a turn; the fields are the columns of CUTS."""

    position: int
    whole_id: str
    cut_turns: int


class Cuts(NamedTuple):
    """The rows of a pool that were cut, and the digest of the pool with the whole rows."""

    whole: str
    rows: list[CutRow]


def write_pool(
    uri: str,
    rows: Iterable[Conversation | Quarantined],
    inputs: Sequence[InputFile],
    cuts: Cuts | None = None,
) -> PoolSummary:
    """Write the pool under `uri`.

    `inputs` and the rows of `cuts` are read after the last row, so the caller may fill them while
    the rows pass.
    """
    with _PoolWriter(uri) as writer:
        for row in rows:
            if isinstance(row, Conversation):
                writer.add(row)
            else:
                writer.quarantine(row)
    files = []
    for name, groups in writer.files:
        info = storage.describe(storage.join(uri, name))
        file = PoolFile(name=name, groups=groups, sha256=info.sha256, bytes=info.bytes)
        files.append(file)
    quarantine = storage.describe(storage.join(uri, QUARANTINE_FILE))
    summary = PoolSummary(
        version=VERSION,
        inputs=list(inputs),
        good=writer.good,
        quarantined=writer.bad,
        files=files,
        quarantine=quarantine,
        whole=None if cuts is None else cuts.whole,
        cuts=None if cuts is None else _write_cuts(uri, cuts.rows),
    )
    storage.write_record(storage.join(uri, POOL_FILE), summary)
    return summary


def _write_cuts(uri: str, rows: Sequence[CutRow]) -> FileInfo:
    """Write CUTS, and return the size and the digest of the file."""
    place = storage.join(uri, CUTS_FILE)
    table = pa.Table.from_pylist([row._asdict() for row in rows], CUTS)
    storage.write_table(place, table)
    return storage.describe(place)


class _PoolWriter:
    """Writes row groups of bounded size, and starts a new file every FILE_GROUPS of them."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.files: list[tuple[str, list[int]]] = []  # name, rows of each row group
        self.good = 0
        self.bad = 0
        self._rows: list[dict[str, Any]] = []
        self._chars = 0
        self._quarantined: list[dict[str, object]] = []
        self._open_file = ExitStack()
        self._open_quarantine = ExitStack()
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _PoolWriter:
        place = storage.join(self.uri, QUARANTINE_FILE)
        self._quarantine_writer = self._open_quarantine.enter_context(
            storage.parquet_writer(place, QUARANTINE)
        )
        return self

    def __exit__(self, *problem: Any) -> None:
        """Write what is left and close the files; after an error, close them alone."""
        with self._open_quarantine, self._open_file:  # both end, whichever fails
            if problem[1] is not None:
                raise problem[1]
            self._flush_rows()
            self._flush_quarantine()

    def add(self, row: Conversation) -> None:
        """Add a good row; writes a row group when it has GROUP_ROWS or GROUP_CHARS."""
        fields = _row_fields(row)
        self._rows.append(fields)
        self._chars += sum(len(turn.role) + len(turn.content) for turn in row.turns)
        self._chars += sum(len(fields[name] or "") for name in ("extra", "tools", "layout"))
        self.good += 1
        if len(self._rows) >= GROUP_ROWS or self._chars >= GROUP_CHARS:
            self._flush_rows()

    def quarantine(self, row: Quarantined) -> None:
        """Add a bad row."""
        fields = {
            "source_uri": row.source.uri,
            "source_row": row.source.row,
            "reason": row.reason,
            "detail": row.detail,
            "raw": row.raw,
        }
        self._quarantined.append(fields)
        self.bad += 1
        if len(self._quarantined) >= GROUP_ROWS:
            self._flush_quarantine()

    def _flush_rows(self) -> None:
        """Write the rows as a row group, into the next file if the current one is full.

        There is a file even if there are no rows.
        """
        if self._writer is None:
            self._writer = self._next_file()
        if self._rows:
            _, groups = self.files[-1]
            if len(groups) >= FILE_GROUPS:
                self._writer = self._next_file()
                _, groups = self.files[-1]
            table = pa.Table.from_pylist(self._rows, schema=ROWS)
            self._writer.write_table(table, row_group_size=len(self._rows))
            groups.append(len(self._rows))
        self._rows = []
        self._chars = 0

    def _next_file(self) -> pq.ParquetWriter:
        """Close the current file and open the next."""
        self._open_file.close()
        name = f"rows-{len(self.files):05d}.parquet"
        self.files.append((name, []))
        place = storage.join(self.uri, name)
        writer = storage.parquet_writer(place, ROWS)
        return self._open_file.enter_context(writer)

    def _flush_quarantine(self) -> None:
        """Write the bad rows as a row group."""
        if self._quarantined:
            table = pa.Table.from_pylist(self._quarantined, schema=QUARANTINE)
            self._quarantine_writer.write_table(table)
        self._quarantined = []


def _row_fields(row: Conversation) -> dict[str, Any]:
    """Return the columns of ROWS for a conversation."""
    turns = [
        {"role": turn.role, "content": turn.content, "fields": _json_text(turn.fields)}
        for turn in row.turns
    ]
    text_id = row.text_id
    return {
        "id": row.id,
        "source_uri": row.source.uri,
        "source_row": row.source.row,
        "text_id": text_id if text_id != row.id else None,
        "turns": turns,
        "tools": _json_text(row.tools),
        "extra": _json_text(row.extra),
        "layout": layout_of(row),
        "n_pairs": len(row.pairs),
        "n_unanswered": row.unanswered,
        "n_media": row.media,
        "n_turns": len(row.turns),
        "n_words": sum(count_words(turn.content) for turn in row.turns),
        "language": detect_language(row.spoken_texts),
    }


def _json_text(value: JSON) -> str | None:
    """Return a value as JSON text; None for an empty one."""
    return json.dumps(value, ensure_ascii=False) if value else None
