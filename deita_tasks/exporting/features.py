"""The types of a subset's columns, as `datasets` reads them from the card of its folder."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from deita_tasks.exporting.arrow import (
    JSON_TEXT,
    field_types,
    infer_type,
    merge_types,
    storage_type,
)
from deita_tasks.strict_json import JSON

# The names that `datasets` has for the types of Arrow that columns are stored in.
DTYPES = {pa.string(): "string", pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool"}
# Text that may be JSON.
LIKE_JSON = re.compile(r'\s*(?:[\[{"\-0-9]|true|false|null)')
# Text that readers of JSON Lines take for a date: 2024-05-01, 2024-05-01T10:00.
DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]|$)")


class ColumnTypes:
    """The types of the columns of JSON Lines, found by looking at every value.

    Without them, `datasets` guesses from the first rows, turns objects with different keys into
    objects with all keys, and texts that look like dates into dates.
    """

    def __init__(self) -> None:
        self.types: dict[str, pa.DataType] = {}
        self.dates: set[str] = set()
        self.json_texts: set[str] = set()

    def add(self, row: Mapping[str, JSON]) -> None:
        """Include one row."""
        for name, value in row.items():
            if isinstance(value, str):
                kinds = self.dates if DATE.match(value) else self.json_texts
                if kinds is self.dates or LIKE_JSON.match(value):
                    kinds.add(name)
            else:
                value = _without_dates(value)
            known = self.types.get(name, pa.null())
            self.types[name] = merge_types(known, infer_type(value))

    def stored(self) -> dict[str, pa.DataType]:
        """Return the type of every column, in order.

        A column with JSON text anywhere is JSON text as a whole: in a part of its own, `datasets`
        5.2 takes the text "4" for a number.
        """
        dates = self.dates - self.json_texts
        types = {}
        for name, kind in self.types.items():
            stored = storage_type(kind)
            is_json = _has_json_text(stored) or (stored == pa.string() and name in dates)
            types[name] = JSON_TEXT if is_json else stored
        return types


def _without_dates(value: JSON) -> JSON:
    """Return `value` with an empty object, whose type is JSON_TEXT, for each text like a date."""
    if isinstance(value, str):
        return {} if DATE.match(value) else value
    if isinstance(value, list | tuple):
        return [_without_dates(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_dates(item) for name, item in value.items()}
    return value


def parquet_types(path: Path) -> dict[str, pa.DataType]:
    """Return the type of every column of a Parquet file, in order."""
    schema = pq.read_schema(path)
    return dict(zip(schema.names, schema.types, strict=True))


def describe_features(types: Mapping[str, pa.DataType]) -> list[JSON]:
    """Return the columns as `dataset_info.features` of a card names them."""
    return [{"name": name, **_feature(kind)} for name, kind in types.items()]


def _feature(kind: pa.DataType) -> dict[str, JSON]:
    if kind == JSON_TEXT:
        return {"dtype": "json"}
    if pa.types.is_list(kind):
        item = _feature(kind.value_type)
        return {"list": item.get("dtype") or item.get("struct") or item}
    if pa.types.is_struct(kind):
        return {"struct": describe_features(field_types(kind))}
    return {"dtype": DTYPES[kind]}


def describe_type(kind: pa.DataType) -> str:
    """Return a type in words: list of text, object of id, name."""
    if kind == JSON_TEXT:
        return "JSON text"
    if pa.types.is_list(kind):
        return f"list of {describe_type(kind.value_type)}"
    if pa.types.is_struct(kind):
        return f"object of {', '.join(field_types(kind))}"
    return DTYPES[kind]


def json_text_columns(types: Mapping[str, pa.DataType]) -> list[str]:
    """Return the names of the columns that hold JSON text, at any depth."""
    return [name for name, kind in types.items() if _has_json_text(kind)]


def mixed_columns(path: Path, names: Sequence[str]) -> list[str]:
    """Return those of the columns `names` of a JSON Lines file that readers of one type refuse.

    They hold values of several types. Objects with different keys are no obstacle.
    """
    kinds: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    with path.open(encoding="utf-8") as lines:
        for line in lines if names else ():
            row = json.loads(line)
            for name in names:
                _collect_kinds(row.get(name), "", kinds[name])
    return [name for name in names if any(len(found) > 1 for found in kinds[name].values())]


def _collect_kinds(value: JSON, place: str, kinds: defaultdict[str, set[str]]) -> None:
    """Add the type of `value` and of all in it to `kinds`, by place; null has none."""
    match value:
        case None:
            return
        case dict():
            kinds[place].add("object")
            for name, item in value.items():
                _collect_kinds(item, f"{place}.{name}", kinds)
        case list():
            kinds[place].add("list")
            for item in value:
                _collect_kinds(item, f"{place}[]", kinds)
        case bool() | str():
            kinds[place].add(type(value).__name__)
        case _:
            kinds[place].add("number")


def _has_json_text(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _has_json_text(kind.value_type)
    if pa.types.is_struct(kind):
        return any(map(_has_json_text, field_types(kind).values()))
    return bool(kind == JSON_TEXT)
