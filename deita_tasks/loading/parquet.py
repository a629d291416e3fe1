"""Parquet: one row per row, its values converted to JSON values.

A text that occurs in many rows is stored once, in a dictionary, so a file of 2 KB can hold
gigabytes. The dictionaries tell how long a row can get. Where rows can get long, texts are read as
indices into the dictionary, and copied out in pieces of limited size.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from math import isfinite
from os import SEEK_END
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deita_tasks.errors import InputError
from deita_tasks.loading.base import (
    MAX_ROW_BYTES,
    BadRow,
    BrokenFile,
    Row,
    list_names,
    not_utf8,
    row_too_long,
)
from deita_tasks.loading.compression import check_expansion
from deita_tasks.loading.json_text import check_value
from deita_tasks.strict_json import JSON

BATCH_BYTES = 16 << 20  # decoded at a time
BATCH_ROWS = 128  # at most; the reader takes 1.2 times as long as with 1,000
LONG_ROW_BYTES = 1 << 20
VALUE_BYTES = 8  # of a number; JSON needs at least a quarter of them
BUFFER_BYTES = 1 << 20  # per column; without it Arrow reads the bytes of a whole row group
TEXTS = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
_encode_json = json.JSONEncoder(ensure_ascii=False).encode


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
                decoded += _decoded_bytes(batch.to_struct_array())
                _check_expansion(file_bytes, decoded)
                for row in _batch_rows(batch, readers.plain.schema_arrow, number):
                    number = row.number
                    yield row
    except (pa.ArrowException, OSError) as error:
        reason = _first_line(error)
        raise BrokenFile(f"the Parquet file is damaged after row {number:,} ({reason})") from error


def _check_expansion(file_bytes: int, decoded: int) -> None:
    check_expansion("Parquet", file_bytes, decoded, "convert it to JSON Lines yourself")


def _open(handle: IO[bytes]) -> _Readers:
    options = {"buffer_size": BUFFER_BYTES, "pre_buffer": False, "page_checksum_verification": True}
    try:
        plain = pq.ParquetFile(handle, **options)
        texts = _text_columns(plain.schema)
        as_indices = pq.ParquetFile(
            handle, metadata=plain.metadata, read_dictionary=texts, **options
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"not readable as Parquet ({_first_line(error)})") from error
    names = plain.schema_arrow.names
    if len(set(names)) != len(names):
        raise InputError(f"duplicate column names among {list_names(names)}; expected unique names")
    return _Readers(plain, as_indices)


def _text_columns(schema: pq.ParquetSchema) -> list[str]:
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
    batch_rows = min(max(int(BATCH_BYTES / row_bytes), 1), BATCH_ROWS)
    for batch in reader.iter_batches(batch_size=batch_rows, row_groups=[group]):
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
    elif pa.types.is_dictionary(kind) and _is_text(kind.value_type):
        yield len(array) * (pc.max(pc.binary_length(array.dictionary)).as_py() or 0)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _decoded_bytes(array: pa.Array) -> int:
    """Return how many bytes `array` takes when each text is a copy of its own."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        if not _is_text(kind.value_type):
            return len(array) * VALUE_BYTES
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        return len(array) + (pc.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(map(_decoded_bytes, array.flatten()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return len(array) * VALUE_BYTES + _decoded_bytes(array.flatten())
    if pa.types.is_map(kind):
        start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        sides = (array.keys.slice(start, end - start), array.items.slice(start, end - start))
        return len(array) * VALUE_BYTES + sum(map(_decoded_bytes, sides))
    return int(array.nbytes)


def _is_text(kind: pa.DataType) -> bool:
    return any(kind.equals(text) for text in TEXTS)


def _batch_rows(batch: pa.RecordBatch, schema: pa.Schema, number: int) -> Iterator[Row]:
    """Yield the rows of `batch`, which follow row `number`, decoding about BATCH_BYTES at a time.

    A row that cannot fit into MAX_ROW_BYTES is not decoded.
    """
    size = _decoded_bytes(batch.to_struct_array())
    if batch.num_rows > 1 and size > BATCH_BYTES:
        middle = batch.num_rows // 2
        for start, end in ((0, middle), (middle, batch.num_rows)):
            half = batch.take(pa.array(range(start, end)))  # a slice would keep all texts
            yield from _batch_rows(half, schema, number + start)
    elif batch.num_rows == 1 and size > VALUE_BYTES * MAX_ROW_BYTES:
        yield Row(number + 1, None, b"", row_too_long(size))
    else:
        for i, values in enumerate(_batch_values(_decode(batch, schema)), 1):
            yield _build_row(number + i, values)


def _decode(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return `batch` with its texts in place of indices into a dictionary."""
    columns = [
        column if column.type == field.type else column.cast(field.type)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class _Unreadable:
    """A cell that has no Python value."""

    def __init__(self, problem: BadRow) -> None:
        self.problem = problem


def _batch_values(batch: pa.RecordBatch) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of `batch` as Python values; a cell without one is _Unreadable."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):  # at least one cell is unreadable
        for i in range(batch.num_rows):
            cells = zip(batch.schema.names, batch.columns, strict=True)
            yield {name: _cell_value(column[i]) for name, column in cells}


def _cell_value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return _Unreadable(not_utf8(error, "a text"))
    except (ValueError, OverflowError, pa.ArrowException) as error:
        detail = f"a value of type {scalar.type} cannot be read ({_first_line(error)})"
        return _Unreadable(BadRow("malformed_row", detail))


def _build_row(number: int, values: Mapping[str, Any]) -> Row:
    unreadable = [value for value in values.values() if isinstance(value, _Unreadable)]
    columns: dict[str, JSON] = {name: json_value(value) for name, value in values.items()}
    text = _encode_json(columns).encode()
    try:
        if unreadable:
            raise unreadable[0].problem
        if len(text) > MAX_ROW_BYTES:
            raise row_too_long(len(text))
        if b"\\u0000" in text:  # an escaped NUL, or these six characters
            check_value(columns)
    except BadRow as problem:
        return Row(number, None, text, problem)
    return Row(number, columns, None)


def json_value(value: Any) -> JSON:
    """Return the value of a cell as JSON.

    Bytes become base64, times ISO 8601, durations seconds; NaN, the infinities and unreadable cells
    become null; anything else that JSON does not have (a decimal, a UUID) becomes its text.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, list | tuple):  # a map is a list of (key, value)
        return [json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return None if isinstance(value, _Unreadable) else str(value)
