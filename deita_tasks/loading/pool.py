"""The files of a pool: which they are, what each of them is, and their rows, one after another."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from deita_tasks import storage
from deita_tasks.errors import EmptyFile, InputError, StorageError
from deita_tasks.loading import parquet
from deita_tasks.loading.base import KEPT, MAX_RAW, BadRow, BrokenFile, Row, RowFormat, listed
from deita_tasks.loading.compression import Compression, blocks, compression_of
from deita_tasks.loading.containers import HEAD, READERS, Container, container_of, without_bom
from deita_tasks.records import Conversation, Quarantined, SourceRow

SAMPLE = 100  # readable rows from which the format is told
PATIENCE = 10_000  # rows that are looked at for them
SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
COMPRESSED = ("", ".gz", ".xz", ".zst", ".zstd")


def pool_files(uri: str | Sequence[str]) -> list[str]:
    """The files that `uri` names (see storage.expand), each once, in order.

    Of a folder, those whose names end like data (SUFFIXES, also compressed): a README beside them
    is no pool. A file or a glob may have any name. Raises InputError where nothing is there.
    """
    found: dict[str, None] = {}
    for one in [uri] if isinstance(uri, str) else uri:
        files = storage.expand(one)
        fs, path = storage.filesystem(one)
        if fs.isdir(path):
            ends = tuple(suffix + packed for suffix in SUFFIXES for packed in COMPRESSED)
            files = [file for file in files if file.lower().endswith(ends)]
            if not files:
                raise InputError(
                    f"{one}: no file below this folder ends with {', '.join(SUFFIXES)} (or "
                    "with .gz, .xz, .zst after it)"
                )
        found.update(dict.fromkeys(files))
    if not found:
        raise InputError("no input was named: expected a file, a folder, a glob or a URI")
    return list(found)


@dataclass(frozen=True)
class PoolFile:
    """A file of conversations, and what it was found to be. Iterating reads it from the beginning."""

    uri: str
    compression: Compression
    container: Container
    format: RowFormat

    def __str__(self) -> str:
        packed = "" if self.compression == "none" else f", {self.compression}"
        return (
            f"{self.uri}: {self.format.name} ({', '.join(self.format.needs())}) in "
            f"{self.container}{packed}"
        )

    def __iter__(self) -> Iterator[Conversation | Quarantined]:
        for row in rows_of(self.uri, self.compression, self.container):
            source = SourceRow(self.uri, row.number)
            if row.columns is None:
                yield quarantined(row, source)
                continue
            try:
                yield self.format.conversation(row.columns, source)
            except BadRow as problem:
                yield quarantined(row._replace(problem=problem), source)


def inspect(uri: str, layouts: Sequence[RowFormat], detect: bool) -> PoolFile:
    """The file `uri`, its layout told from the first rows that can be read (SAMPLE of them).

    Each of these rows counts for the first of `layouts` whose columns it has; most rows win, and
    the earlier layout on a tie. Rows of the file that are not of this layout will be quarantined.
    With `detect`, a file without any row of a known layout is an InputError; without, the first of
    `layouts` is taken for it.
    """
    with opened(uri) as handle:
        compression = compression_of(handle.read(HEAD))
        handle.seek(0)
        container = container_of(head_of(handle, compression), uri, layouts)
        if container == "parquet" and compression != "none":
            raise InputError(
                f"Parquet inside {compression} cannot be read in parts: decompress it, "
                "Parquet is compressed by itself"
            )
    votes, names, problem = sample(rows_of(uri, compression, container), layouts)
    if not names and problem is None:
        raise EmptyFile(f"{uri}: no rows; expected conversations")
    if detect and not votes:
        wanted = "; ".join(dict.fromkeys(f"{layout.name}: {layout.expected}" for layout in layouts))
        found = (
            f"its rows have {listed(names)}"
            if names
            else f"no row can be read (the first: {problem})"
        )
        raise InputError(
            f"{uri}: of no known format: {found}; expected {wanted}; or name one with --format"
        )
    best = max(range(len(layouts)), key=lambda i: (votes[i], -i))
    return PoolFile(uri, compression, container, layouts[best])


def sample(
    rows: Iterator[Row], layouts: Sequence[RowFormat]
) -> tuple[Counter[int], dict[str, None], str | None]:
    """For each of `layouts` the number of rows that have its columns, all columns seen, and what
    was the matter with the first bad row.
    """
    votes: Counter[int] = Counter()
    names: dict[str, None] = {}
    problem: str | None = None
    readable = 0
    try:
        for seen, row in enumerate(rows, 1):
            if row.columns is None:
                problem = problem or f"row {row.number}: {row.problem}"
            else:
                readable += 1
                names.update(dict.fromkeys(row.columns))
                held = {name for name, value in row.columns.items() if value is not None}
                votes.update([i for i, layout in enumerate(layouts) if layout.fits(held)][:1])
            if readable == SAMPLE or seen == PATIENCE:
                break
    except BrokenFile:
        if not names:
            raise  # else reading will say so, after the rows before that place
    return votes, names, problem


def rows_of(uri: str, compression: Compression, container: Container) -> Iterator[Row]:
    """The rows of the file `uri`, whatever they mean."""
    with opened(uri) as handle:
        yield from (
            parquet.rows(handle)
            if container == "parquet"
            else READERS[container](without_bom(blocks(handle, compression)))
        )


@contextmanager
def opened(uri: str) -> Iterator[IO[bytes]]:
    """The bytes under `uri`; what goes wrong with them is told with the URI."""
    try:
        handle = storage.open_read(uri)
    except StorageError as error:
        raise InputError(str(error)) from error
    try:
        with handle:
            yield handle
    except InputError as error:
        raise type(error)(f"{uri}: {error}") from error


def head_of(handle: IO[bytes], compression: Compression) -> bytes:
    """The first bytes behind `handle`, decompressed, that are no white space; HEAD of them or all.
    Raises EmptyFile for none.
    """
    head = b""
    try:
        for block in blocks(handle, compression):
            head = (head + block).lstrip()
            if len(head) >= HEAD:
                break
    except BrokenFile:
        if not head:
            raise
    if not head:
        raise EmptyFile("an empty file; expected conversations")
    return head[:HEAD]


def quarantined(row: Row, source: SourceRow) -> Quarantined:
    """The bad row, with as much of it as quarantine keeps."""
    assert row.problem is not None
    whole = (
        json.dumps(row.columns, ensure_ascii=False).encode()
        if row.raw is None
        else row.raw.rstrip(b"\r\n")
    )
    raw = whole[:KEPT].decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    detail = row.problem.detail
    if len(whole) > KEPT or len(raw) > MAX_RAW:
        raw, detail = (
            raw[:MAX_RAW],
            f"{detail} (only the first {MAX_RAW:,} characters of the row are kept)",
        )
    return Quarantined(source, row.problem.reason, detail, raw)
