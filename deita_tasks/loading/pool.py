"""The files of a pool: find them, detect what each one is, and read its rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

from deita_tasks import storage
from deita_tasks.errors import EmptyFile, InputError, StorageError
from deita_tasks.loading.base import (
    MAX_RAW_BYTES,
    MAX_RAW_CHARACTERS,
    BadRow,
    BrokenFile,
    Row,
    RowFormat,
    list_names,
)
from deita_tasks.loading.compression import Compression, blocks, detect_compression
from deita_tasks.loading.containers import (
    BINARY_READERS,
    HEAD_BYTES,
    READERS,
    Container,
    by_column,
    detect_container,
    remove_bom,
)
from deita_tasks.records import Conversation, Quarantined, SourceRow
from deita_tasks.strict_json import JSON

SAMPLE_ROWS = 100  # readable rows from which the format is detected
MAX_SEARCHED_ROWS = 10_000  # rows in which they are looked for
SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
COMPRESSION_SUFFIXES = ("", ".gz", ".xz", ".zst", ".zstd")
FILE_SUFFIXES = tuple(data + packed for data in SUFFIXES for packed in COMPRESSION_SUFFIXES)


def pool_files(uri: str | Sequence[str]) -> list[str]:
    """Return the files that `uri` names (see storage.expand), each once, in order.

    In a folder, only files with the suffix of a data format count (FILE_SUFFIXES), so that a README
    beside them is not read. A file or a glob may have any name. Raises InputError if there is none.
    """
    patterns = [uri] if isinstance(uri, str) else uri
    files = [file for pattern in patterns for file in _expand(pattern)]
    if not files:
        raise InputError("no input was given; expected a file, a folder, a glob or a URI")
    return list(dict.fromkeys(files))


def _expand(pattern: str) -> list[str]:
    files = storage.expand(pattern)
    fs, path = storage.filesystem(pattern)
    if not fs.isdir(path):
        return files
    data_files = [file for file in files if file.lower().endswith(FILE_SUFFIXES)]
    if not data_files:
        raise InputError(
            f"{pattern}: no file below this folder ends with {', '.join(SUFFIXES)} (or "
            "with .gz, .xz, .zst after it)"
        )
    return data_files


@dataclass(frozen=True)
class PoolFile:
    """A file of conversations and how to read it. Each iteration reads it from the beginning."""

    uri: str
    compression: Compression
    container: Container
    format: RowFormat

    def __str__(self) -> str:
        columns = ", ".join(self.format.required_columns())
        packed = "" if self.compression == "none" else f", {self.compression}"
        return f"{self.uri}: {self.format.name} ({columns}) in {self.container}{packed}"

    def __iter__(self) -> Iterator[Conversation | Quarantined]:
        for row in read_rows(self.uri, self.compression, self.container):
            source = SourceRow(self.uri, row.number)
            if row.columns is None:
                yield quarantine(row, source)
                continue
            try:
                yield self.format.conversation(row.columns, source)
            except BadRow as problem:
                yield quarantine(row._replace(problem=problem), source)


def detect_file(uri: str, layouts: Sequence[RowFormat], require_match: bool) -> PoolFile:
    """Detect what the file `uri` is; its layout follows from the first SAMPLE_ROWS readable rows.

    Each of these rows counts for the first of `layouts` whose columns it has. The layout with the
    most rows wins, the earlier one on a tie. Other rows will be quarantined. If no row matches any
    layout, `require_match` raises InputError; without it the first layout is used.
    """
    compression, container = _detect_encoding(uri, layouts)
    sample = sample_rows(read_rows(uri, compression, container), layouts)
    if not sample.columns and sample.first_problem is None:
        raise EmptyFile(f"{uri}: no rows; expected conversations")
    if sample.readable == 1 and _is_by_column(sample.first_row):
        raise InputError(f"{uri}: {by_column()}")
    if require_match and not sample.votes:
        raise InputError(f"{uri}: {_explain_mismatch(sample, layouts)}")
    best = max(range(len(layouts)), key=lambda i: (sample.votes[i], -i))
    return PoolFile(uri, compression, container, layouts[best])


def _detect_encoding(uri: str, layouts: Sequence[RowFormat]) -> tuple[Compression, Container]:
    with open_file(uri) as handle:
        compression = detect_compression(handle.read(HEAD_BYTES))
        handle.seek(0)
        container = detect_container(read_head(handle, compression), uri, layouts)
        if container in BINARY_READERS and compression != "none":
            raise InputError(
                f"{container.capitalize()} inside {compression} cannot be read in parts; "
                "decompress the file (it is compressed internally)"
            )
    return compression, container


@dataclass
class Sample:
    """What the first rows of a file look like.

    votes: how many rows have the columns of each layout, by the layout's index. columns: all names
    in these rows, in order of appearance. first_problem: what is wrong with the first bad row.
    """

    votes: Counter[int] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    first_problem: str | None = None
    first_row: dict[str, JSON] | None = None
    readable: int = 0

    def add(self, row: Row, layouts: Sequence[RowFormat]) -> None:
        """Count one row."""
        if row.columns is None:
            self.first_problem = self.first_problem or f"row {row.number}: {row.problem}"
            return
        self.first_row = self.first_row or row.columns
        self.readable += 1
        self.columns.update(dict.fromkeys(row.columns))
        present = {name for name, value in row.columns.items() if value is not None}
        matching = [i for i, layout in enumerate(layouts) if layout.matches(present)]
        self.votes.update(matching[:1])


def sample_rows(rows: Iterable[Row], layouts: Sequence[RowFormat]) -> Sample:
    """Look at `rows` until SAMPLE_ROWS were readable, but not at more than MAX_SEARCHED_ROWS."""
    sample = Sample()
    try:
        for searched, row in enumerate(rows, 1):
            sample.add(row, layouts)
            if sample.readable == SAMPLE_ROWS or searched == MAX_SEARCHED_ROWS:
                break
    except BrokenFile:
        if not sample.columns:
            raise  # otherwise reading raises it, after the rows before the damage
    return sample


def _is_by_column(columns: Mapping[str, JSON] | None) -> bool:
    """Return whether a file's only row holds a list of values, or values by number, in each cell."""
    cells = list((columns or {}).values())
    if not cells:
        return False
    if all(isinstance(cell, dict) for cell in cells):
        names = [list(cell) for cell in cells if isinstance(cell, dict)]
        return all(name == names[0] for name in names) and names[0][:1] == ["0"]
    lists = [cell for cell in cells if isinstance(cell, list)]
    items = [item for cell in lists for item in cell]
    return (
        len(lists) == len(cells)
        and len({len(cell) for cell in lists}) == 1
        and bool(items)
        and not any(isinstance(item, dict) for item in items)
    )


def _explain_mismatch(sample: Sample, layouts: Sequence[RowFormat]) -> str:
    """Return the message for a file whose rows match no layout."""
    if sample.columns:
        arrived = f"its rows have {list_names(sample.columns)}"
    else:
        arrived = f"no row can be read (the first problem: {sample.first_problem})"
    formats = dict.fromkeys(f"{layout.name}: {layout.expected}" for layout in layouts)
    expected = "; ".join(formats)
    return f"unknown format: {arrived}; expected {expected}; or choose one with --format"


def read_rows(uri: str, compression: Compression, container: Container) -> Iterator[Row]:
    """Yield the rows of the file `uri`, whatever their format."""
    with open_file(uri) as handle:
        if container in BINARY_READERS:
            yield from BINARY_READERS[container](handle)
        else:
            yield from READERS[container](remove_bom(blocks(handle, compression)))


@contextmanager
def open_file(uri: str) -> Iterator[IO[bytes]]:
    """Open the file `uri` for reading. InputErrors raised inside name the URI."""
    try:
        handle = storage.open_read(uri)
    except StorageError as error:
        raise InputError(str(error)) from error
    try:
        with handle:
            yield handle
    except InputError as error:
        raise type(error)(f"{uri}: {error}") from error


def read_head(handle: IO[bytes], compression: Compression) -> bytes:
    """Return the first HEAD_BYTES of the decompressed content, without leading white space.

    Raises EmptyFile if there is nothing else.
    """
    head = b""
    try:
        for block in blocks(handle, compression):
            head = (head + block).lstrip()
            if len(head) >= HEAD_BYTES:
                break
    except BrokenFile:
        if not head:
            raise
    if not head:
        raise EmptyFile("an empty file; expected conversations")
    return head[:HEAD_BYTES]


def quarantine(row: Row, source: SourceRow) -> Quarantined:
    """Return the bad row as Quarantined, with at most MAX_RAW_CHARACTERS of its content."""
    assert row.problem is not None
    if row.raw is None:
        content = json.dumps(row.columns, ensure_ascii=False).encode()
    else:
        content = row.raw.rstrip(b"\r\n")
    start = content[:MAX_RAW_BYTES].decode("utf-8", "backslashreplace")
    raw = start.replace("\0", "\\x00")
    detail = row.problem.detail
    if len(content) > MAX_RAW_BYTES or len(raw) > MAX_RAW_CHARACTERS:
        raw = raw[:MAX_RAW_CHARACTERS]
        detail += f" (only the first {MAX_RAW_CHARACTERS:,} characters of the row are kept)"
    return Quarantined(source, row.problem.reason, detail, raw)
