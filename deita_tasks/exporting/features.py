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
        """Include one row: merge the types of its values, note texts like dates or like JSON."""
        for name, value in row.items():
            if not isinstance(value, str):
                value = _without_dates(value)
            elif DATE.match(value):
                self.dates.add(name)
            elif LIKE_JSON.match(value):
                self.json_texts.add(name)
            known = self.types.get(name, pa.null())
            inferred = infer_type(value)
            self.types[name] = merge_types(known, inferred)

    def stored(self) -> dict[str, pa.DataType]:
        """Return the type of every column, in order.

        A column with JSON text anywhere is JSON text as a whole: in a part of its own, `datasets`
        5.2 takes the text "4" for a number.
        """
        dates = self.dates - self.json_texts
        types = {}
        for name, kind in self.types.items():
            stored = storage_type(kind)
            is_date = stored == pa.string() and name in dates
            if is_date or _has_json_text(stored):
                stored = JSON_TEXT
            types[name] = stored
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
    features: list[JSON] = []
    for name, kind in types.items():
        feature = {"name": name, **_feature(kind)}
        features.append(feature)
    return features


def _feature(kind: pa.DataType) -> dict[str, JSON]:
    """Return a type as cards write it: {"dtype": …}, {"list": …} or {"struct": …}."""
    if kind == JSON_TEXT:
        return {"dtype": "json"}
    if pa.types.is_list(kind):
        item = _feature(kind.value_type)
        described = item.get("dtype") or item.get("struct") or item
        return {"list": described}
    if pa.types.is_struct(kind):
        return {"struct": describe_features(field_types(kind))}
    return {"dtype": DTYPES[kind]}


def describe_type(kind: pa.DataType) -> str:
    """Return a type in words: list of text, object of id, name."""
    if kind == JSON_TEXT:
        return "JSON text"
    if pa.types.is_list(kind):
        item = describe_type(kind.value_type)
        return f"list of {item}"
    if pa.types.is_struct(kind):
        names = ", ".join(field_types(kind))
        return f"object of {names}"
    return DTYPES[kind]


def json_text_columns(types: Mapping[str, pa.DataType]) -> list[str]:
    """Return the names of the columns that hold JSON text, at any depth."""
    return [name for name, kind in types.items() if _has_json_text(kind)]


def mixed_columns(path: Path, names: Sequence[str]) -> list[str]:
    """Return those of the columns `names` of a JSON Lines file that readers of one type refuse.

    They hold values of several types. Objects with different keys are no obstacle.
    """
    if not names:
        return []
    kinds: dict[str, defaultdict[str, set[str]]] = {name: defaultdict(set) for name in names}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            for name in names:
                value = row.get(name)
                _collect_kinds(value, "", kinds[name])
    mixed = []
    for name in names:
        places = kinds[name].values()
        if any(len(place) > 1 for place in places):
            mixed.append(name)
    return mixed


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
    """Return whether values of this type hold JSON text, at any depth."""
    if pa.types.is_list(kind):
        return _has_json_text(kind.value_type)
    if pa.types.is_struct(kind):
        kinds = field_types(kind).values()
        return any(_has_json_text(field) for field in kinds)
    return bool(kind == JSON_TEXT)
