"""The texts of a pool as a person reads them, and its columns of few values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.pool import Pool
from deita_tasks.languages import language_name
from deita_tasks.reporting.composition import ValueCounter, value_text
from deita_tasks.selecting.arrays import Indices
from deita_tasks.strict_json import JSON

MAX_CHARACTERS = 20_000  # shown of a conversation: a page of the table has 100 of them
TEXT = pa.schema({"text": pa.string()})


def read_texts(pool: Pool) -> Iterator[pa.Table]:
    """Yield the text of every good row (TEXT) in source order, one row group at a time."""
    for table in pool.scan(["turns"]):
        for chunk in table["turns"].chunks:
            yield pa.table([shorten(render_turns(chunk), MAX_CHARACTERS)], schema=TEXT)


def render_turns(turns: pa.Array) -> pa.Array:
    """Return lists of turns as text: "role:", what it says, and its other fields as JSON."""
    flat = pc.list_flatten(turns)
    role, content, fields = flat.flatten()
    heading = pc.binary_join_element_wise(role, ":", "")
    messages = pc.binary_join_element_wise(heading, content, fields, "\n", null_handling="skip")
    lengths = pc.list_value_length(turns).to_numpy(zero_copy_only=False)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), messages)
    return pc.binary_join(lists, "\n\n")


def shorten(texts: pa.Array, characters: int) -> pa.Array:
    """Return the beginnings of `texts`; one that is cut says how many characters are left out."""
    lengths = pc.utf8_length(texts)
    is_long = pc.greater(lengths, characters)
    if not pc.any(is_long).as_py():
        return texts
    beginnings = pc.utf8_slice_codeunits(texts, 0, characters)
    hidden = pc.cast(pc.subtract(lengths, characters), pa.string())
    mark = pc.binary_join_element_wise("\n… and", hidden, "more characters", " ")
    cut = pc.binary_join_element_wise(beginnings, mark, "")
    return pc.if_else(is_long, cut, texts)


def take_texts(texts: pa.ChunkedArray, positions: Indices) -> pa.Array:
    """Return the texts at `positions`, null for -1; reads only the chunks that these lie in."""
    ends = np.cumsum([len(chunk) for chunk in texts.chunks])
    chunks = np.searchsorted(ends, positions, side="right")
    chunks[positions < 0] = -1
    pieces = [pa.nulls(0, pa.string())]
    rows = np.argsort(chunks, kind="stable")
    rows = rows[chunks[rows] >= 0]
    for number in np.unique(chunks[rows]):
        chunk = texts.chunk(int(number))
        in_chunk = positions[rows[chunks[rows] == number]]
        pieces.append(chunk.take(pa.array(in_chunk - (ends[number] - len(chunk)))))
    order = np.full(len(positions), -1)
    order[rows] = np.arange(len(rows))
    return pa.concat_arrays(pieces).take(pa.array(order, mask=order < 0))


def language_names(codes: pa.Array) -> pa.Array:
    """Return the English names of languages."""
    encoded = codes.dictionary_encode()
    names = [language_name(code) for code in encoded.dictionary.to_pylist()]
    return pa.array(names, pa.string()).take(encoded.indices)


def read_columns(pool: Pool) -> dict[str, pa.Array]:
    """Return the other columns of the input that have few values, as text, in source order.

    They are those of the report. Null where a row has no value. Reads them twice, row by row.
    """
    counter = ValueCounter()
    for columns in _rows(pool):
        counter.add(columns, is_selected=False)
    names = [column.name for column in counter.counts()]
    if not names:
        return {}
    return _values(pool, names)


def _values(pool: Pool, names: Sequence[str]) -> dict[str, pa.Array]:
    values: dict[str, list[str | None]] = {name: [] for name in names}
    texts: dict[str, str] = {}  # one string for each value, however many rows have it
    for columns in _rows(pool):
        for name, column in values.items():
            value = columns.get(name)
            if value is None:
                column.append(None)
                continue
            text = value_text(value)
            column.append(texts.setdefault(text, text))
    return {name: pa.array(column, pa.string()) for name, column in values.items()}


def _rows(pool: Pool) -> Iterator[Mapping[str, JSON]]:
    """Yield the other columns of every good row."""
    for table in pool.scan(["extra"]):
        for text in table["extra"].to_pylist():
            yield json.loads(text) if text else {}
