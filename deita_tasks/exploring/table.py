"""The table that the explorer shows: a line for every row of a ledger, or of a pool.

Columns whose name begins with "__" are not shown: the map and the search for neighbours use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.ledger import SCHEMA
from deita_tasks.artifacts.pool import Pool
from deita_tasks.exploring.columns import (
    Columns,
    category_columns,
    column,
    input_columns,
    length_columns,
    merge,
    nearest_columns,
    number_columns,
)
from deita_tasks.exploring.conversations import (
    MAX_CHARACTERS,
    TEXT,
    read_texts,
    shorten,
    take_texts,
)
from deita_tasks.exploring.opening import Explored
from deita_tasks.exploring.similar import Neighbours, Similar, find_similar
from deita_tasks.selecting.arrays import Indices

ROW, X, Y, NEIGHBOURS = "__row", "__x", "__y", "__neighbours"
NEAREST_CHARACTERS = 4_000  # shown of the text beside another
BLOCK_ROWS = 2_000
UNDRAWN = {"reason", "id", "nearest_id", "source_row"}  # no chart shows anything of these
# In this order; the others, which are those of the input, come after them.
FIRST_COLUMNS = (
    *("decision", "rank", "evol_score", "text", "nearest_similarity", "nearest_distance"),
    *("nearest_text", "complexity", "quality", "reason", "source", "source_row", "language"),
    *("turns", "words", "tokens", "truncated", "stratum", "id", "nearest_id"),
)


class ExplorerTable(NamedTuple):
    """The table, and what the page draws.

    numbers, categories: columns with a histogram, and columns whose values are counted.
    """

    rows: pa.Table
    numbers: list[str]
    categories: list[str]

    def has(self, name: str) -> bool:
        """Return whether there is a column of this name."""
        return name in self.rows.column_names


def build_table(explored: Explored, folder: str) -> ExplorerTable:
    """Return the table of n rows, in the order of the ledger. It lies in a file in `folder`."""
    pool = explored.pool
    ledger = _bare_ledger(pool) if explored.ledger is None else explored.ledger
    raw = pool.quarantine(["source_uri", "source_row", "raw"])
    positions = _positions_in_pool(ledger, pool, raw)
    similar = None
    if explored.vectors is not None and explored.ledger is not None:
        similar = find_similar(pool, ledger, explored.vectors)
    categories = category_columns(pool, ledger, positions)
    numbers = number_columns(explored, ledger) | length_columns(pool, positions)
    nearest = nearest_columns(explored, ledger, similar)
    places = {name: column(ledger, name) for name in ("reason", "id", "source_row")}
    of_input = input_columns(pool, positions)
    columns = merge([categories, numbers, nearest, places, of_input])
    drawn = [name for name in columns if _is_drawn(name, columns[name])]
    if similar is not None:
        columns |= _map_columns(column(ledger, "id"), similar)
    texts = _map_file(Path(folder) / "texts.arrow", chain(read_texts(pool), [_raw_texts(raw)]))
    blocks = _with_texts(columns, texts["text"], positions)
    rows = _map_file(Path(folder) / "rows.arrow", blocks)
    return ExplorerTable(
        rows,
        numbers=[name for name in drawn if not pa.types.is_string(columns[name].type)],
        categories=[name for name in drawn if pa.types.is_string(columns[name].type)],
    )


def _is_drawn(name: str, values: pa.Array) -> bool:
    """Return whether a chart of a column would show anything."""
    return name not in UNDRAWN and len(pc.unique(values.drop_null())) > 1


def _bare_ledger(pool: Pool) -> pa.Table:
    """Return the rows of a pool as a ledger without decisions, but for those of bad rows."""
    places = ["source_uri", "source_row"]
    bad = pool.quarantine([*places, "reason"])
    decision = pa.scalar("quarantined", pa.string())
    bad = bad.append_column("decision", pa.repeat(decision, len(bad)))
    tables = [SCHEMA.empty_table(), pool.index(["id", *places]), bad]
    return pa.concat_tables(tables, promote_options="default")


def _positions_in_pool(ledger: pa.Table, pool: Pool, raw: pa.Table) -> Indices:
    """Return the position of each row of the ledger among the good rows, then the bad rows."""
    places = ["source_uri", "source_row"]
    stored = pa.concat_tables([pool.index(places), raw.select(places)])
    found = pc.index_in(_place_keys(ledger), value_set=_place_keys(stored))
    return np.asarray(found.fill_null(-1).to_numpy(), np.int64)


def _place_keys(rows: pa.Table) -> pa.Array:
    row = column(rows, "source_row").cast(pa.string())
    return pc.binary_join_element_wise(row, column(rows, "source_uri"), ":")


def _map_columns(ids: pa.Array, similar: Similar) -> Columns:
    """Return the place of each row on the map, and the rows that are most like it."""
    columns: Columns = {}
    rows = pc.index_in(ids, value_set=similar.ids)
    if similar.places is not None:
        for name, values in zip((X, Y), similar.places.T, strict=True):
            place = pa.array(values, mask=np.isnan(values))
            columns[name] = place.take(rows)
    if similar.neighbours is not None:
        row_of_id = pc.index_in(similar.ids, value_set=ids).to_numpy().astype(np.int64)
        columns[NEIGHBOURS] = _neighbour_lists(similar.neighbours, row_of_id).take(rows)
    return columns


def _neighbour_lists(neighbours: Neighbours, row_of_id: Indices) -> pa.Array:
    """Return the neighbours as Embedding Atlas reads them: rows, and distances of 1 - cosine."""
    is_there = neighbours.positions >= 0
    ends = np.cumsum(is_there.sum(axis=1))
    offsets = pa.array(np.concatenate(([0], ends)), pa.int32())
    rows = pa.array(row_of_id[neighbours.positions[is_there]])
    distances = pa.array(1 - neighbours.similarities[is_there])
    lists = {
        "ids": pa.ListArray.from_arrays(offsets, rows),
        "distances": pa.ListArray.from_arrays(offsets, distances),
    }
    return pa.StructArray.from_arrays(list(lists.values()), names=list(lists))


# ---- texts


def _raw_texts(raw: pa.Table) -> pa.Table:
    """Return the raw texts of quarantined rows (TEXT)."""
    return pa.table([shorten(column(raw, "raw"), MAX_CHARACTERS)], schema=TEXT)


def _with_texts(columns: Columns, texts: pa.ChunkedArray, positions: Indices) -> Iterator[pa.Table]:
    """Yield the columns with the text of each row and of the selected row nearest to it."""
    rows = pa.array(np.arange(len(positions)))
    table = pa.table({ROW: rows, **columns})
    nearest = _positions_of_nearest(columns, positions)
    for start in range(0, max(1, len(positions)), BLOCK_ROWS):
        block = table.slice(start, BLOCK_ROWS)
        in_block = slice(start, start + BLOCK_ROWS)
        text = take_texts(texts, positions[in_block])
        block = block.append_column("text", text)
        if nearest is not None:
            beside = take_texts(texts, nearest[in_block])
            beside = shorten(beside, NEAREST_CHARACTERS)
            block = block.append_column("nearest_text", beside)
        yield block.select(_in_order(block.column_names))


def _in_order(names: Iterable[str]) -> list[str]:
    first = {name: place for place, name in enumerate(FIRST_COLUMNS)}
    return sorted(names, key=lambda name: first.get(name, len(first)))


def _positions_of_nearest(columns: Columns, positions: Indices) -> Indices | None:
    """Return the position of the nearest selected row, -1 for none; None if no row has one."""
    if "nearest_id" not in columns:
        return None
    rows = pc.index_in(columns["nearest_id"], value_set=columns["id"], skip_nulls=True)
    is_there = rows.is_valid().to_numpy(zero_copy_only=False)
    nearest = np.full(len(positions), -1)
    nearest[is_there] = positions[rows.drop_null().to_numpy()]
    return nearest


def _map_file(path: Path, tables: Iterable[pa.Table]) -> pa.Table:
    """Write `tables`, at least one, to an Arrow file; return it mapped into memory."""
    rest = iter(tables)
    first = next(rest)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        for table in chain([first], rest):
            writer.write_table(table)
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
