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
        for turns in table["turns"].chunks:
            yield text_table(render_turns(turns))


def text_table(texts: pa.Array) -> pa.Table:
    """Return texts as a table (TEXT), in their order, the long ones cut to MAX_CHARACTERS."""
    shown = shorten(texts, MAX_CHARACTERS)
    return pa.table([shown], schema=TEXT)


def render_turns(turns: pa.Array) -> pa.Array:
    """Return conversations as text, with a blank line between two turns.

    turns: a list of TURN for each, as the pool has them. A turn is its role and a colon, its
    content, and its other fields as JSON if it has any, each on a new line.
    """
    flat = pc.list_flatten(turns)
    role, content, fields = flat.flatten()
    heading = pc.binary_join_element_wise(role, ":", "")
    messages = pc.binary_join_element_wise(heading, content, fields, "\n", null_handling="skip")
    counts = pc.list_value_length(turns)
    ends = np.cumsum(counts.to_numpy())
    offsets = pa.array([0, *ends], pa.int32())
    conversations = pa.ListArray.from_arrays(offsets, messages)
    return pc.binary_join(conversations, "\n\n")


def shorten(texts: pa.Array, characters: int) -> pa.Array:
    """Return the beginnings of `texts`.

    One that is cut says how many characters are left out.
    """
    lengths = pc.utf8_length(texts)
    is_long = pc.greater(lengths, characters)
    if not pc.any(is_long).as_py():
        return texts
    beginnings = pc.utf8_slice_codeunits(texts, 0, characters)
    hidden = pc.subtract(lengths, characters)
    count = pc.cast(hidden, pa.string())
    mark = pc.binary_join_element_wise("\n… and", count, "more characters", " ")
    cut = pc.binary_join_element_wise(beginnings, mark, "")
    return pc.if_else(is_long, cut, texts)


def take_texts(texts: pa.ChunkedArray, positions: Indices) -> pa.Array:
    """Return the texts at `positions`, int64 (n,); null for -1.

    Reads the chunks that these lie in and no others, where Arrow's own `take` would first copy all
    chunks into one.
    """
    pieces = []
    places = np.full(len(positions), -1)  # of each text in all pieces, one after the other
    start = 0
    taken = 0
    for chunk in texts.chunks:
        end = start + len(chunk)
        is_here = (positions >= start) & (positions < end)
        rows = np.flatnonzero(is_here)
        if len(rows):
            in_chunk = positions[rows] - start
            piece = chunk.take(pa.array(in_chunk))
            pieces.append(piece)
            places[rows] = np.arange(taken, taken + len(rows))
            taken += len(rows)
        start = end
    if not pieces:
        return pa.nulls(len(positions), pa.string())
    order = pa.array(places, mask=places < 0)
    return pa.concat_arrays(pieces).take(order)


def language_names(codes: pa.Array) -> pa.Array:
    """Return the English names of n languages, a string each; null for null.

    codes: as the pool has them. Each distinct code is looked up once.
    """
    encoded = codes.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    names = pa.array(map(language_name, distinct), pa.string())
    return names.take(encoded.indices)


def read_columns(pool: Pool) -> dict[str, pa.Array]:
    """Return the other columns of the input that have few values, as text, by name.

    They are those that the report counts. A column has a value for each of the good rows, in source
    order, null where a row has none. Reads the rows twice, a row group at a time: only after the
    last row it is clear which columns have few values.
    """
    counter = ValueCounter()
    for columns in _rows(pool):
        counter.add(columns, is_selected=False)
    names = [column.name for column in counter.counts()]
    if not names:
        return {}
    return _values(pool, names)


def _values(pool: Pool, names: Sequence[str]) -> dict[str, pa.Array]:
    """Return these columns as text.

    Holds one string for each distinct value, however many rows have it.
    """
    values: dict[str, list[str | None]] = {}
    for name in names:
        values[name] = []
    texts: dict[str, str] = {}
    for columns in _rows(pool):
        for name, column in values.items():
            value = columns.get(name)
            text = None
            if value is not None:
                text = value_text(value)
                text = texts.setdefault(text, text)
            column.append(text)
    arrays = {}
    for name, column in values.items():
        arrays[name] = pa.array(column, pa.string())
    return arrays


def _rows(pool: Pool) -> Iterator[Mapping[str, JSON]]:
    """Yield the other columns of every good row, in source order."""
    for table in pool.scan(["extra"]):
        texts = table["extra"].to_pylist()
        for text in texts:
            yield json.loads(text) if text else {}
