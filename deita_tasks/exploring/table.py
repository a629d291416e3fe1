"""The table that the explorer shows: a line for every row of a ledger, or of a pool.

    decision, reason, stratum    as in the ledger
    rank, evol_score             the same; null where they are not computed
    complexity, quality          mean over the turns, and other scores that rank_by names
    tokens                       if a tokenizer has counted them
    turns, words                 how long the conversation is
    text                         of a bad row, its raw text
    nearest_id, nearest_text     the selected row that blocked it, or that is most like it
    nearest_similarity           to that row; nearest_distance where the selection compares by one
    source, source_row           the file, and where it stands in there
    language                     in English
    truncated                    whether a model read only a part of it: yes or no
    id                           null for a bad row
    ...                          columns of the input that have few values

Names that begin with "__" are not shown: the map and the search for neighbours use these columns.
A column that no row has a value in is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from deita_tasks.exploring.conversations import read_texts, shorten, take_texts, text_table
from deita_tasks.exploring.opening import ExplorerSource
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

    rows: mapped into memory from a file, which has to stay while the table is in use. numbers:
    columns with a histogram. categories: columns whose values are counted.
    """

    rows: pa.Table
    numbers: list[str]
    categories: list[str]

    def has(self, name: str) -> bool:
        """Return whether there is a column of this name."""
        return name in self.rows.column_names


def build_table(source: ExplorerSource, folder: str) -> ExplorerTable:
    """Return the table, with a line for each row of the ledger, in its order.

    Its files lie in `folder`. Holds the texts of one row group in memory, and everything else but
    the texts. Vectors of a large pool lie in a file of their own while they are compared.
    """
    pool = source.pool
    ledger = _bare_ledger(pool) if source.ledger is None else source.ledger
    raw = pool.quarantine(["source_uri", "source_row", "raw"])
    positions = _positions_in_pool(ledger, pool, raw)
    similar = None
    if source.vectors is not None and source.ledger is not None:
        similar = find_similar(pool, ledger, source.vectors)
    columns = merge(
        [
            category_columns(pool, ledger, positions),
            number_columns(source, ledger),
            length_columns(pool, positions),
            nearest_columns(source, ledger, similar),
            _own_columns(ledger),
            input_columns(pool, positions),
        ]
    )
    hidden: Columns = {}
    if similar is not None:
        ids = column(ledger, "id")
        hidden = _map_columns(ids, similar)
    raw_texts = text_table(column(raw, "raw"))
    texts = _map_file(Path(folder) / "texts.arrow", chain(read_texts(pool), [raw_texts]))
    rows = _map_file(
        Path(folder) / "rows.arrow", _with_texts(columns | hidden, texts["text"], positions)
    )
    return _drawn(rows, columns)


def _own_columns(ledger: pa.Table) -> Columns:
    """Return columns of the ledger that nothing is drawn of."""
    columns = {}
    for name in ("reason", "id", "source_row"):
        columns[name] = column(ledger, name)
    return columns


def _drawn(rows: pa.Table, columns: Columns) -> ExplorerTable:
    """Return the table with the columns of which a chart would show anything."""
    numbers: list[str] = []
    categories: list[str] = []
    for name, values in columns.items():
        distinct = pc.unique(values.drop_null())
        if name in UNDRAWN or len(distinct) < 2:
            continue
        is_text = pa.types.is_string(values.type)
        group = categories if is_text else numbers
        group.append(name)
    return ExplorerTable(rows, numbers, categories)


def _bare_ledger(pool: Pool) -> pa.Table:
    """Return the rows of a pool as a ledger without decisions, but for those of bad rows."""
    places = ["source_uri", "source_row"]
    bad = pool.quarantine([*places, "reason"])
    decisions = pa.array(["quarantined"] * len(bad), pa.string())
    bad = bad.append_column("decision", decisions)
    good = pool.index(["id", *places])
    nothing = SCHEMA.empty_table()
    return pa.concat_tables([nothing, good, bad], promote_options="default")


def _positions_in_pool(ledger: pa.Table, pool: Pool, raw: pa.Table) -> Indices:
    """Return the position of each row of the ledger among the good rows, then the bad rows."""
    places = ["source_uri", "source_row"]
    good = pool.index(places)
    bad = raw.select(places)
    stored = pa.concat_tables([good, bad])
    positions = pc.index_in(_place_keys(ledger), value_set=_place_keys(stored))
    positions = positions.fill_null(-1)
    return np.asarray(positions.to_numpy(), np.int64)


def _place_keys(rows: pa.Table) -> pa.Array:
    """Return where each row stands in the input, as text."""
    uris = column(rows, "source_uri")
    numbers = column(rows, "source_row")
    texts = numbers.cast(pa.string())
    return pc.binary_join_element_wise(texts, uris, ":")


def _map_columns(ids: pa.Array, similar: Similar) -> Columns:
    """Return the place of each row on the map, and the selected rows that are most like it.

    ids: of each row of the table. Null for a row without a vector.
    """
    columns: Columns = {}
    rows = pc.index_in(ids, value_set=similar.ids)
    if similar.places is not None:
        for axis, name in enumerate((X, Y)):
            values = similar.places[:, axis]
            is_missing = np.isnan(values)
            place = pa.array(values, mask=is_missing)
            columns[name] = place.take(rows)
    if similar.neighbours is not None:
        first_rows = pc.index_in(similar.ids, value_set=ids)
        row_of_id = first_rows.to_numpy().astype(np.int64)
        lists = _neighbour_lists(similar.neighbours, row_of_id)
        columns[NEIGHBOURS] = lists.take(rows)
    return columns


def _neighbour_lists(neighbours: Neighbours, row_of_id: Indices) -> pa.Array:
    """Return the neighbours as Embedding Atlas reads them: rows, and distances of 1 - cosine.

    row_of_id: the first row of the table that has each id, int64 (n,).
    """
    is_there = neighbours.positions >= 0
    counts = is_there.sum(axis=1)
    ends = np.cumsum(counts)
    offsets = pa.array([0, *ends], pa.int32())
    positions = neighbours.positions[is_there]
    distances = 1 - neighbours.similarities[is_there]
    values = {"ids": row_of_id[positions], "distances": distances}
    lists = []
    for flat in values.values():
        array = pa.array(flat)
        lists.append(pa.ListArray.from_arrays(offsets, array))
    return pa.StructArray.from_arrays(lists, names=list(values))


# ---- texts


def _with_texts(columns: Columns, texts: pa.ChunkedArray, positions: Indices) -> Iterator[pa.Table]:
    """Yield the columns with the text of each row and of the selected row nearest to it.

    A block of rows at a time, and at least one. texts: of the good rows of the pool, then of the
    bad ones. positions: of the rows among these, int64 (n,).
    """
    count = len(positions)
    rows = pa.array(range(count), pa.int64())
    table = pa.table({ROW: rows, **columns})
    nearest = _positions_of_nearest(columns, positions)
    for start in range(0, max(1, count), BLOCK_ROWS):
        in_block = slice(start, start + BLOCK_ROWS)
        block = table.slice(start, BLOCK_ROWS)
        text = take_texts(texts, positions[in_block])
        block = block.append_column("text", text)
        if nearest is not None:
            nearest_text = take_texts(texts, nearest[in_block])
            nearest_text = shorten(nearest_text, NEAREST_CHARACTERS)
            block = block.append_column("nearest_text", nearest_text)
        names = _in_order(block.column_names)
        yield block.select(names)


def _in_order(names: Sequence[str]) -> list[str]:
    """Return the names of columns, those of FIRST_COLUMNS first."""
    first = [name for name in FIRST_COLUMNS if name in names]
    others = [name for name in names if name not in first]
    return first + others


def _positions_of_nearest(columns: Columns, positions: Indices) -> Indices | None:
    """Return the position of the nearest selected row, -1 for none; None if no row has one."""
    if "nearest_id" not in columns:
        return None
    rows = pc.index_in(columns["nearest_id"], value_set=columns["id"], skip_nulls=True)
    nearest = pa.array(positions).take(rows)
    nearest = nearest.fill_null(-1)
    return np.asarray(nearest.to_numpy(), np.int64)


def _map_file(path: Path, tables: Iterable[pa.Table]) -> pa.Table:
    """Write `tables`, at least one, to an Arrow file; return it mapped into memory."""
    rest = iter(tables)
    first = next(rest)
    place = str(path)
    with pa.OSFile(place, "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        writer.write_table(first)
        for table in rest:
            writer.write_table(table)
    source = pa.memory_map(place)
    reader = pa.ipc.open_file(source)
    return reader.read_all()
