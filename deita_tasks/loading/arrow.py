"""Arrow IPC, as a stream or a file, which is how `datasets` keeps its data on disk."""

from __future__ import annotations

from collections.abc import Iterator
from os import SEEK_END
from typing import IO

import pyarrow as pa

from deita_tasks.errors import InputError
from deita_tasks.loading.arrow_rows import batch_rows, decoded_bytes, first_line
from deita_tasks.loading.base import BrokenFile, Row, list_names
from deita_tasks.loading.compression import check_expansion

FILE_MAGIC = b"ARROW1"
STREAM_MAGIC = b"\xff\xff\xff\xff"
STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


def rows(handle: IO[bytes]) -> Iterator[Row]:
    """Yield the rows of an Arrow stream or file, one record batch in memory at a time.

    Raises InputError if it is not one or expands like a bomb, and BrokenFile where it is damaged or
    ends early.
    """
    file_bytes = handle.seek(0, SEEK_END)
    number = decoded = 0
    try:
        for batch in _read_batches(handle):
            decoded += decoded_bytes(batch.to_struct_array())
            check_expansion("Arrow", file_bytes, decoded, "convert it to JSON Lines yourself")
            for row in batch_rows(batch, batch.schema, number):
                number = row.number
                yield row
    except (pa.ArrowException, OSError) as error:
        reason = first_line(error)
        raise BrokenFile(f"the Arrow data is damaged after row {number:,} ({reason})") from error


def _read_batches(handle: IO[bytes]) -> Iterator[pa.RecordBatch]:
    """Yield the record batches. Raises InputError for another format or names that repeat."""
    handle.seek(0)
    is_file = handle.read(len(FILE_MAGIC)) == FILE_MAGIC
    try:
        if not is_file:
            _check_end(handle)
        handle.seek(0)
        reader = pa.ipc.open_file(handle) if is_file else pa.ipc.open_stream(handle)
    except (pa.ArrowException, OSError) as error:
        reason = first_line(error)
        raise InputError(f"not readable as Arrow IPC ({reason})") from error
    names = reader.schema.names
    if len(set(names)) != len(names):
        listed = list_names(names)
        raise InputError(f"duplicate column names among {listed}; expected unique names")
    if not is_file:
        for batch in reader:
            yield _checked(batch)
        return
    for i in range(reader.num_record_batches):
        batch = reader.get_batch(i)
        yield _checked(batch)


def _check_end(handle: IO[bytes]) -> None:
    """Raise BrokenFile for a stream without its end, which Arrow reads as if it were whole."""
    size = handle.seek(0, SEEK_END)
    handle.seek(max(0, size - len(STREAM_END)))
    if handle.read() != STREAM_END:
        raise BrokenFile("the Arrow stream has no end mark: the file is incomplete")


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return `batch`. Raises ArrowInvalid for damage that would end Python."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):  # such a cell is a bad row
            raise
    return batch
