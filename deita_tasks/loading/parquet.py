"""Parquet: one row per row, its values converted to JSON values."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from math import isfinite
from typing import IO, Any

import pyarrow as pa
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
from deita_tasks.loading.json_text import check_value
from deita_tasks.strict_json import JSON

BATCH_BYTES = 16 << 20  # decoded at a time, estimated from the file's metadata
BATCH_ROWS = 1_000
BUFFER_BYTES = 1 << 20  # per column; without it Arrow reads the bytes of a whole row group
_encode_json = json.JSONEncoder(ensure_ascii=False).encode


def rows(handle: IO[bytes]) -> Iterator[Row]:
    """Yield the rows of a Parquet file.

    Raises InputError if it is not one, and BrokenFile where its pages are damaged.
    """
    parquet = _open(handle)
    number = 0
    try:
        for batch in parquet.iter_batches(batch_size=_rows_per_batch(parquet.metadata)):
            for values in _batch_values(batch):
                number += 1
                yield _build_row(number, values)
    except (pa.ArrowException, OSError) as error:
        reason = _first_line(error)
        raise BrokenFile(f"the Parquet file is damaged after row {number:,} ({reason})") from error


def _open(handle: IO[bytes]) -> pq.ParquetFile:
    try:
        parquet = pq.ParquetFile(
            handle, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not readable as Parquet ({_first_line(error)})") from error
    names = parquet.schema_arrow.names
    if len(set(names)) != len(names):
        raise InputError(f"duplicate column names among {list_names(names)}; expected unique names")
    return parquet


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _rows_per_batch(metadata: pq.FileMetaData) -> int:
    """Return how many rows are about BATCH_BYTES, judging by the row group with the largest."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    row_bytes = [group.total_byte_size / max(group.num_rows, 1) for group in groups]
    fitting = int(BATCH_BYTES / max([1, *row_bytes]))
    return min(max(fitting, 1), BATCH_ROWS)


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
