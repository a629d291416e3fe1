"""Parquet: a row a row, its values as JSON values."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from math import isfinite
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from deita_tasks.errors import InputError
from deita_tasks.loading.base import MAX_ROW, BadRow, BrokenFile, Row, listed, too_long
from deita_tasks.loading.json_text import check

BATCH_BYTES = 16 << 20  # decoded at a time, judged by the file's own figures
BATCH_ROWS = 1_000
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode
BUFFER = 1 << 20  # of each column; without it Arrow holds a whole row group's bytes


def rows(handle: IO[bytes]) -> Iterator[Row]:
    """The rows of a Parquet file. Raises InputError for what is not one, BrokenFile where its pages
    are damaged.
    """
    try:
        parquet = pq.ParquetFile(
            handle, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not readable as Parquet ({_first_line(error)})") from error
    names = parquet.schema_arrow.names
    if len(set(names)) != len(names):
        raise InputError(f"two columns of one name among {listed(names)}; expected unique names")
    number = 0
    try:
        for batch in parquet.iter_batches(batch_size=_batch_rows(parquet.metadata)):
            for row in _batch(batch):
                number += 1
                yield _row(number, row)
    except (pa.ArrowException, OSError) as error:
        raise BrokenFile(
            f"the Parquet file is damaged after row {number:,} ({_first_line(error)})"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """Rows of about BATCH_BYTES, by the row group whose rows are the largest."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
    return min(max(int(BATCH_BYTES / max(largest, 1)), 1), BATCH_ROWS)


def _batch(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The rows of `batch` as Python values; _Unreadable where a cell has none."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):  # one cell is enough; find it
        for i in range(batch.num_rows):
            yield {
                name: _cell(column[i])
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }


class _Unreadable:
    """A cell that Python cannot hold."""

    def __init__(self, problem: BadRow) -> None:
        self.problem = problem


def _cell(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return _Unreadable(
            BadRow(
                "invalid_utf8",
                f"byte {error.start + 1} of a text, "
                f"0x{error.object[error.start]:02x}, is not UTF-8",
            )
        )
    except (ValueError, OverflowError, pa.ArrowException) as error:
        return _Unreadable(
            BadRow(
                "malformed_row",
                f"a value of type {scalar.type} cannot be read ({_first_line(error)})",
            )
        )


def _row(number: int, values: dict[str, Any]) -> Row:
    columns: dict[str, Any] = {}
    problem: BadRow | None = None
    for name, value in values.items():
        if isinstance(value, _Unreadable):
            problem = problem or value.problem
            value = None
        columns[name] = json_value(value)
    text = _ENCODE(columns).encode()
    try:
        if problem:
            raise problem
        if len(text) > MAX_ROW:
            raise too_long(len(text))
        if b"\\u0000" in text:  # JSON's way to write a NUL, or those six characters
            check(columns)
    except BadRow as found:
        return Row(number, None, text, found)
    return Row(number, columns, None)


def json_value(value: Any) -> Any:
    """`value` as JSON has it: bytes in base64, times in ISO 8601, durations in seconds, decimals as
    their digits; NaN and infinity, which JSON does not have, as null; anything else (a UUID, ...)
    as its text.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, list | tuple):  # a map is a list of (key, value)
        return [json_value(part) for part in value]
    if isinstance(value, dict):
        return {str(key): json_value(part) for key, part in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)
