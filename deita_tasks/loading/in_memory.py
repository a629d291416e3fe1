"""Rows from Python: a pandas DataFrame, a datasets.Dataset, or any dicts."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from deita_tasks import storage
from deita_tasks.errors import EmptyFile, InputError
from deita_tasks.loading.arrow_rows import json_value
from deita_tasks.strict_json import JSON, strict_json

DATAFRAME_ROWS = 1_000  # converted at a time


def save_pool(rows: Iterable[Any], store: str) -> str:
    """Write rows into the store as JSON Lines, under a name that follows from their content.

        uri = save_pool(dataframe, ".deita")
        select(source=Source(input=uri), ...)

    rows: a pandas DataFrame (whose index is left out unless it has a name), a datasets.Dataset, or
    an iterable of dicts. Values become JSON as those of Parquet do. Equal rows have one file, which
    `deita store gc` leaves alone. Raises InputError for a value that JSON cannot hold, and
    EmptyFile if there are no rows.
    """
    with storage.scratch_folder() as folder:
        draft = storage.join(folder, "rows.jsonl")
        digest = hashlib.sha256()
        with open(draft, "wb") as file:
            for line in encode_rows(rows):
                digest.update(line)
                file.write(line)
            if not file.tell():
                raise EmptyFile("no rows were given; expected conversations")
        name = digest.hexdigest()[:32]
        uri = storage.join(store, "inputs", f"{name}.jsonl")
        if not storage.exists(uri):
            with open(draft, "rb") as file, storage.write_atomic(uri) as handle:
                shutil.copyfileobj(file, handle)
    return uri


def encode_rows(rows: Iterable[Any]) -> Iterator[bytes]:
    """Yield each row as a line of JSON. Raises InputError for a value that JSON cannot hold."""
    for number, row in enumerate(_records(rows), 1):
        try:
            line = strict_json(_to_json(row))
            yield line.encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"row {number}: {error}; expected JSON values") from error


def _records(rows: Iterable[Any]) -> Iterator[Any]:
    """Yield rows, those of a DataFrame as dicts. Raises InputError for columns of one name."""
    if not isinstance(rows, pd.DataFrame):
        yield from rows
        return
    table = rows.reset_index() if any(rows.index.names) else rows
    if not table.columns.is_unique:
        raise InputError("the DataFrame has duplicate column names; expected unique names")
    for start in range(0, len(table), DATAFRAME_ROWS):
        part = table.iloc[start : start + DATAFRAME_ROWS]
        yield from part.astype(object).to_dict("records")


def _to_json(value: Any) -> JSON:
    """Return `value` as JSON. Raises TypeError for a type without a JSON counterpart."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, Mapping):
        names = [str(name) for name in value]
        if len(set(names)) != len(names):
            raise ValueError(f"the names {names[:12]} are not unique as texts")
        items = [_to_json(item) for item in value.values()]
        return dict(zip(names, items, strict=True))
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, set | frozenset | complex) or callable(value):
        raise TypeError(f"a value of type {type(value).__name__}")
    return json_value(value)
