"""JSON values as Arrow columns, without loss.

What no Arrow type holds exactly becomes JSON text, in the type arrow.json: `datasets` gives the
values back, and other readers see text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import pyarrow as pa

from deita_tasks.strict_json import JSON, is_encodable, strict_json

JSON_TEXT = pa.json_()
# In surveys, integers that a double holds exactly; they are stored as int64. Beside other numbers
# they become doubles.
SMALL_INTEGER = pa.int32()
SMALL_INTEGERS = range(-(2**53), 2**53 + 1)
INT64 = range(-(2**63), 2**63)


def infer_type(value: JSON, integer: pa.DataType = SMALL_INTEGER) -> pa.DataType:
    """Return the type that holds the JSON value `value` exactly.

    It is JSON_TEXT for an empty object, an integer over 64 bits and a lone surrogate.
    integer: the type of integers that a double holds; with int64, 1 beside 0.5 does not become 1.0.
    """
    match value:
        case None:
            return pa.null()
        case bool():
            return pa.bool_()
        case int():
            return _integer_type(value, integer)
        case float():
            return pa.float64()
        case str():
            return pa.string() if is_encodable(value) else JSON_TEXT
        case list() | tuple():
            item_types = [infer_type(item, integer) for item in value]
            item_type = reduce(merge_types, item_types, pa.null())
            return pa.list_(item_type)
        case dict() if value:
            fields = [(name, infer_type(item, integer)) for name, item in value.items()]
            return pa.struct(fields)
    return JSON_TEXT


def _integer_type(value: int, small: pa.DataType) -> pa.DataType:
    """Return the type of an integer: a double holds it, or 64 bits do, or only text."""
    if value in SMALL_INTEGERS:
        return small
    return pa.int64() if value in INT64 else JSON_TEXT


def merge_types(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    """Return the type of a column that holds both exactly.

    JSON_TEXT for mixed types, and for objects with different keys.
    """
    if left == right or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    kinds = {left, right}
    if kinds == {SMALL_INTEGER, pa.int64()}:
        return pa.int64()
    if kinds == {SMALL_INTEGER, pa.float64()}:
        return pa.float64()
    if pa.types.is_list(left) and pa.types.is_list(right):
        item_type = merge_types(left.value_type, right.value_type)
        return pa.list_(item_type)
    if pa.types.is_struct(left) and pa.types.is_struct(right):
        return _merge_structs(field_types(left), field_types(right))
    return JSON_TEXT


def _merge_structs(left: dict[str, pa.DataType], right: dict[str, pa.DataType]) -> pa.DataType:
    """Return the type of objects with these fields; JSON_TEXT if the names differ."""
    if left.keys() != right.keys():
        return JSON_TEXT
    fields = [(name, merge_types(left[name], right[name])) for name in left]
    return pa.struct(fields)


def field_types(struct: pa.StructType) -> dict[str, pa.DataType]:
    """Return the types of the fields of `struct`, by name."""
    fields = [struct.field(i) for i in range(struct.num_fields)]
    return {field.name: field.type for field in fields}


def storage_type(column: pa.DataType) -> pa.DataType:
    """Return the type in which a column is stored.

    It is string for parts that are null in every row, because some readers of Parquet refuse the
    null type.
    """
    return _replace_types(column, {pa.null(): pa.string(), SMALL_INTEGER: pa.int64()})


def _replace_types(
    column: pa.DataType, replacements: Mapping[pa.DataType, pa.DataType]
) -> pa.DataType:
    """Return `column` with some types replaced by others, at any depth."""
    if pa.types.is_list(column):
        item_type = _replace_types(column.value_type, replacements)
        return pa.list_(item_type)
    if pa.types.is_struct(column):
        kinds = field_types(column)
        fields = [(name, _replace_types(kind, replacements)) for name, kind in kinds.items()]
        return pa.struct(fields)
    return replacements.get(column, column)


def to_array(values: Sequence[JSON], column: pa.DataType) -> pa.Array:
    """Return `values` as an array of the storage type of `column`.

    column: a type that holds them all, as `merge_types` gives it. JSON text stands where the type
    has JSON_TEXT; null stays null.
    """
    stored = storage_type(column)
    texts = [_with_json_texts(value, stored) for value in values]
    # Arrow makes no arrays of an extension type from Python's values, but casts texts to it.
    array = pa.array(texts, type=_replace_types(stored, {JSON_TEXT: pa.string()}))
    return array.cast(stored)


def _with_json_texts(value: JSON, column: pa.DataType) -> JSON:
    """Return `value` with JSON text where the column has JSON_TEXT; null stays null."""
    if value is None:
        return None
    if column == JSON_TEXT:
        return strict_json(value)
    if pa.types.is_list(column):
        kind = column.value_type
        return [_with_json_texts(item, kind) for item in value]  # type: ignore[union-attr]
    if pa.types.is_struct(column):
        kinds = field_types(column)
        texts: dict[str, JSON] = {}
        for name, kind in kinds.items():
            item = value.get(name)  # type: ignore[union-attr]
            texts[name] = _with_json_texts(item, kind)
        return texts
    return value
