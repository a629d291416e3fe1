"""Parquet: one row per row, its values converted to JSON values.

A text that occurs in many rows is stored once, in a dictionary, so a file of 2 KB can hold
gigabytes. The dictionaries tell how long a row can get. Where rows can get long, texts are read as
indices into the dictionary, and copied out in pieces of limited size.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import SEEK_END
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deita_tasks.errors import InputError
from deita_tasks.loading.arrow_rows import (
    BATCH_BYTES,
    batch_rows,
    decoded_bytes,
    first_line,
    is_text,
)
from deita_tasks.loading.base import BrokenFile, Row, list_names
from deita_tasks.loading.compression import check_expansion

BATCH_ROWS = 128  # at most; the reader takes 1.2 times as long as with 1,000
LONG_ROW_BYTES = 1 << 20
BUFFER_BYTES = 1 << 20  # per column; without it Arrow reads the bytes of a whole row group


class _Readers(NamedTuple):
    """Two readers of one file. as_indices: gives texts as indices into a dictionary.

    It is exact about repeated texts, but holds all others up to the end of a row group.
    """

    plain: pq.ParquetFile
    as_indices: pq.ParquetFile


def rows(handle: IO[bytes]) -> Iterator[Row]:
    """Yield the rows of a Parquet file.

    Raises InputError if it is not one or expands like a bomb, and BrokenFile where its pages are
    damaged.
    """
    file_bytes = handle.seek(0, SEEK_END)
    readers = _open(handle)
    number = decoded = 0
    try:
        for group in range(readers.plain.num_row_groups):
            for batch in _read_group(readers, group):
                decoded += decoded_bytes(batch.to_struct_array())
                _check_expansion(file_bytes, decoded)
                for row in batch_rows(batch, readers.plain.schema_arrow, number):
                    number = row.number
                    yield row
    except (pa.ArrowException, OSError) as error:
        reason = first_line(error)
        raise BrokenFile(f"the Parquet file is damaged after row {number:,} ({reason})") from error


def _check_expansion(file_bytes: int, decoded: int) -> None:
    """Raise InputError where the rows read so far expand like a decompression bomb.

    decoded: bytes of their values in Arrow, of all batches up to here.
    """
    check_expansion("Parquet", file_bytes, decoded, "convert it to JSON Lines yourself")


def _open(handle: IO[bytes]) -> _Readers:
    """Return two readers of the file, which share its metadata.

    Raises InputError if it is not Parquet, or if two columns have the same name.
    """
    options = {"buffer_size": BUFFER_BYTES, "pre_buffer": False, "page_checksum_verification": True}
    try:
        plain = pq.ParquetFile(handle, **options)
        texts = _text_columns(plain.schema)
        as_indices = pq.ParquetFile(
            handle, metadata=plain.metadata, read_dictionary=texts, **options
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"not readable as Parquet ({first_line(error)})") from error
    names = plain.schema_arrow.names
    if len(set(names)) != len(names):
        raise InputError(f"duplicate column names among {list_names(names)}; expected unique names")
    return _Readers(plain, as_indices)


def _text_columns(schema: pq.ParquetSchema) -> list[str]:
    """Return the dotted paths of the columns of text, those inside lists and structs included.

    Old writers stored text as bytes without a logical type; such columns count too.
    """
    columns = [schema.column(i) for i in range(len(schema))]
    return [
        column.path
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and column.logical_type.type in ("STRING", "NONE")
    ]


def _read_group(readers: _Readers, group: int) -> Iterator[pa.RecordBatch]:
    """Yield a row group in batches of about BATCH_BYTES."""
    metadata = readers.plain.metadata.row_group(group)
    longest = _longest_row(readers, group)
    reader = readers.plain if longest <= LONG_ROW_BYTES else readers.as_indices
    row_bytes = max(1, metadata.total_byte_size / max(metadata.num_rows, 1))
    if reader is readers.plain:
        row_bytes = max(row_bytes, longest)
    size = min(max(int(BATCH_BYTES / row_bytes), 1), BATCH_ROWS)
    for batch in reader.iter_batches(batch_size=size, row_groups=[group]):
        batch.validate()  # damage may make columns of different lengths, which end in a crash
        yield batch


def _longest_row(readers: _Readers, group: int) -> int:
    """Return about how many bytes a row takes that has the longest texts where the first has any.

    The metadata of the columns would tell more, but reading it from a damaged file ends Python.
    """
    first = next(readers.as_indices.iter_batches(batch_size=1, row_groups=[group]), None)
    if first is None:
        return 0
    first.validate()
    return sum(_longest_texts(first.to_struct_array()))


def _longest_texts(array: pa.Array) -> Iterator[int]:
    """Yield the bytes of each column of texts if all were the longest of its dictionary."""
    kind = array.type
    if pa.types.is_struct(kind):
        for column in array.flatten():
            yield from _longest_texts(column)
    elif pa.types.is_map(kind):
        yield from _longest_texts(array.keys)
        yield from _longest_texts(array.items)
    elif pa.types.is_nested(kind):
        yield from _longest_texts(array.values)
    elif pa.types.is_dictionary(kind) and is_text(kind.value_type):
        yield len(array) * (pc.max(pc.binary_length(array.dictionary)).as_py() or 0)
