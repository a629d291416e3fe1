"""Rows of Arrow batches: their values converted to JSON values, in pieces of limited size."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.loading.base import MAX_ROW_BYTES, BadRow, Row, not_utf8, row_too_long
from deita_tasks.loading.json_text import check_value, parse
from deita_tasks.strict_json import JSON

BATCH_BYTES = 16 << 20  # decoded at a time
VALUE_BYTES = 8  # of a number; JSON needs at least a quarter of them
TEXTS = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
_encode_json = json.JSONEncoder(ensure_ascii=False).encode


def first_line(error: BaseException) -> str:
    """Return an error's message up to the first line break."""
    return str(error).partition("\n")[0]


def decoded_bytes(array: pa.Array) -> int:
    """Return how many bytes `array` takes when each text is a copy of its own.

    A dictionary holds a text once that a million rows repeat: what decoding it would take is known
    before it is done.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        if not is_text(kind.value_type):
            return len(array) * VALUE_BYTES
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        row_lengths = lengths.take(array.indices)
        total = pc.sum(row_lengths).as_py()  # None where every row is null
        return len(array) + (total or 0)
    if pa.types.is_struct(kind):
        return sum(map(decoded_bytes, array.flatten()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return len(array) * VALUE_BYTES + decoded_bytes(array.flatten())
    if pa.types.is_map(kind):
        start = array.offsets[0].as_py()
        length = array.offsets[-1].as_py() - start
        keys = array.keys.slice(start, length)
        items = array.items.slice(start, length)
        return len(array) * VALUE_BYTES + decoded_bytes(keys) + decoded_bytes(items)
    return int(array.nbytes)


def is_text(kind: pa.DataType) -> bool:
    """Return whether values of this type are texts or bytes."""
    return any(kind.equals(text) for text in TEXTS)


def batch_rows(batch: pa.RecordBatch, schema: pa.Schema, number: int) -> Iterator[Row]:
    """Yield the rows of `batch`, which follow row `number`, decoding about BATCH_BYTES at a time.

    A row that cannot fit into MAX_ROW_BYTES is not decoded.
    """
    size = decoded_bytes(batch.to_struct_array())
    if batch.num_rows > 1 and size > BATCH_BYTES:
        middle = batch.num_rows // 2
        for start, end in ((0, middle), (middle, batch.num_rows)):
            indices = pa.array(range(start, end))
            half = batch.take(indices)  # a slice would keep all texts
            yield from batch_rows(half, schema, number + start)
    elif batch.num_rows == 1 and size > VALUE_BYTES * MAX_ROW_BYTES:
        yield Row(number + 1, None, b"", row_too_long(size))
    else:
        json_types = {field.name: field.type for field in schema if _holds_json(field.type)}
        decoded = _decode(batch, schema)
        for row_number, values in enumerate(_batch_values(decoded), number + 1):
            yield _build_row(row_number, values, json_types)


def _decode(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return `batch` with its texts in place of indices into a dictionary."""
    columns = []
    for column, field in zip(batch.columns, schema, strict=True):
        if column.type != field.type:
            column = column.cast(field.type)
        columns.append(column)
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
            values = {}
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                values[name] = _cell_value(column[i])
            yield values


def _cell_value(scalar: pa.Scalar) -> Any:
    """Return the Python value of a cell; _Unreadable if it has none."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return _Unreadable(not_utf8(error, "a text"))
    except (ValueError, OverflowError, pa.ArrowException) as error:
        reason = first_line(error)
        detail = f"a value of type {scalar.type} cannot be read ({reason})"
        return _Unreadable(BadRow("malformed_row", detail))


def _holds_json(kind: pa.DataType) -> bool:
    """Return whether values of this type hold the type arrow.json somewhere."""
    if pa.types.is_nested(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return any(_holds_json(field.type) for field in fields)
    return isinstance(kind, pa.JsonType)


def _parse_json_texts(value: Any, kind: pa.DataType) -> Any:
    """Return `value` with what its JSON texts stand for. Raises BadRow."""
    if isinstance(value, str) and isinstance(kind, pa.JsonType):
        return parse(value)
    if isinstance(value, dict) and pa.types.is_struct(kind):
        parsed = {}
        for name, item in value.items():
            field = kind.field(name)
            parsed[name] = _parse_json_texts(item, field.type)
        return parsed
    is_list = pa.types.is_nested(kind) and not pa.types.is_map(kind)
    if is_list and isinstance(value, list):
        return [_parse_json_texts(item, kind.value_type) for item in value]
    return value


def _build_row(
    number: int, values: Mapping[str, Any], json_types: Mapping[str, pa.DataType]
) -> Row:
    """Return the row of `values`; a bad row if a cell is unreadable or the row is too long.

    json_types: the types of the columns that hold JSON texts, which are parsed.
    """
    unreadable = [value for value in values.values() if isinstance(value, _Unreadable)]
    columns: dict[str, JSON] = {name: json_value(value) for name, value in values.items()}
    text = _encode_json(columns).encode()
    try:
        if unreadable:
            raise unreadable[0].problem
        if len(text) > MAX_ROW_BYTES:
            raise row_too_long(len(text))
        for name, kind in json_types.items():
            columns[name] = _parse_json_texts(columns[name], kind)
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
    if isinstance(value, _Unreadable):
        return None
    return str(value)
