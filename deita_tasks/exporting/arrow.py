"""JSON values as Arrow columns, without loss."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pyarrow as pa

from deita_tasks.strict_json import encodable, strict_json

INT64 = range(-(2**63), 2**63)


def arrow_type(value: Any) -> pa.DataType | None:
    """The Arrow type that holds the JSON value `value` exactly; None where there is none (an object
    without keys, an integer over 64 bits, a lone surrogate).
    """
    match value:
        case None:
            return pa.null()
        case bool():
            return pa.bool_()
        case int():
            return pa.int64() if value in INT64 else None
        case float():
            return pa.float64()
        case str():
            return pa.string() if encodable(value) else None
        case list() | tuple():
            item = reduce(merge, map(arrow_type, value), pa.null())
            return None if item is None else pa.list_(item)
        case dict():
            fields = {name: arrow_type(part) for name, part in value.items()}
            if not fields or None in fields.values():
                return None
            return pa.struct(sorted(fields.items()))
    return None


def merge(one: pa.DataType | None, other: pa.DataType | None) -> pa.DataType | None:
    """The type of a column that holds both; None where only JSON text can (a mixture, or objects
    with unequal keys).
    """
    if one is None or other is None:
        return None
    if one == other:
        return one
    if pa.types.is_null(one) or pa.types.is_null(other):
        return other if pa.types.is_null(one) else one
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()  # Arrow refuses, when writing, an integer that a double cannot hold
    if pa.types.is_list(one) and pa.types.is_list(other):
        item = merge(one.value_type, other.value_type)
        return None if item is None else pa.list_(item)
    if pa.types.is_struct(one) and pa.types.is_struct(other) and names(one) == names(other):
        fields = {name: merge(one.field(name).type, other.field(name).type) for name in names(one)}
        return None if None in fields.values() else pa.struct(list(fields.items()))
    return None


def names(struct: pa.StructType) -> list[str]:
    """The names of a struct's fields, in order."""
    return [struct.field(i).name for i in range(struct.num_fields)]


def settled(column: pa.DataType | None) -> pa.DataType:
    """`column`, with string for JSON text and for parts that are null in every row, which some
    readers of Parquet refuse.
    """
    if column is None or pa.types.is_null(column):
        return pa.string()
    if pa.types.is_list(column):
        return pa.list_(settled(column.value_type))
    if pa.types.is_struct(column):
        return pa.struct([(name, settled(column.field(name).type)) for name in names(column)])
    return column


def as_column(values: list[Any], column: pa.DataType | None) -> pa.Array:
    """`values` as an array of the settled type of `column`; JSON text where `column` is None, null
    staying null.
    """
    if column is None:
        values = [None if value is None else strict_json(value) for value in values]
    return pa.array(values, type=settled(column))
