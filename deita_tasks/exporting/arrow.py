"""JSON values as Arrow columns, without loss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import pyarrow as pa

from deita_tasks.strict_json import JSON, is_encodable, strict_json

INT64 = range(-(2**63), 2**63)


def infer_type(value: JSON) -> pa.DataType | None:
    """Return the Arrow type that holds the JSON value `value` exactly, or None.

    There is none for an empty object, an integer over 64 bits and a lone surrogate.
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
            return pa.string() if is_encodable(value) else None
        case list() | tuple():
            item_type = reduce(merge_types, map(infer_type, value), pa.null())
            return _list_type(item_type)
        case dict():
            return _struct_type({name: infer_type(value[name]) for name in sorted(value)})
    return None


def _list_type(item_type: pa.DataType | None) -> pa.DataType | None:
    if item_type is None:
        return None
    return pa.list_(item_type)


def _struct_type(field_types: dict[str, pa.DataType | None]) -> pa.DataType | None:
    if not field_types or None in field_types.values():
        return None
    return pa.struct(list(field_types.items()))


def merge_types(left: pa.DataType | None, right: pa.DataType | None) -> pa.DataType | None:
    """Return the type of a column that holds both.

    None if only JSON text can hold both: mixed types, or objects with different keys.
    """
    if left is None or right is None:
        return None
    if left == right or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    if {left, right} == {pa.int64(), pa.float64()}:
        return pa.float64()  # when writing, Arrow refuses an integer that a double cannot hold
    if pa.types.is_list(left) and pa.types.is_list(right):
        return _list_type(merge_types(left.value_type, right.value_type))
    if pa.types.is_struct(left) and pa.types.is_struct(right):
        return _merge_structs(_field_types(left), _field_types(right))
    return None


def _merge_structs(
    left: dict[str, pa.DataType], right: dict[str, pa.DataType]
) -> pa.DataType | None:
    if list(left) != list(right):
        return None
    return _struct_type({name: merge_types(left[name], right[name]) for name in left})


def _field_types(struct: pa.StructType) -> dict[str, pa.DataType]:
    fields = [struct.field(i) for i in range(struct.num_fields)]
    return {field.name: field.type for field in fields}


def storage_type(column: pa.DataType | None) -> pa.DataType:
    """Return the type in which a column is stored.

    It is string for JSON text (None), and for parts that are null in every row, because some
    readers of Parquet refuse the null type.
    """
    if column is None or pa.types.is_null(column):
        return pa.string()
    if pa.types.is_list(column):
        return pa.list_(storage_type(column.value_type))
    if pa.types.is_struct(column):
        fields = _field_types(column)
        return pa.struct([(name, storage_type(field)) for name, field in fields.items()])
    return column


def to_array(values: Sequence[JSON], column: pa.DataType | None) -> pa.Array:
    """Return `values` as an array of the storage type of `column`.

    If `column` is None, they become JSON text, and null stays null.
    """
    if column is None:
        values = [_json_text(value) for value in values]
    return pa.array(values, type=storage_type(column))


def _json_text(value: JSON) -> str | None:
    if value is None:
        return None
    return strict_json(value)
