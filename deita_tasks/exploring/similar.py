"""Where rows lie on a map, and the selected rows that are most like each of them.

The map is that of the report: two principal components of a sample. Similarities are exact, as in
`selecting/similarity/exact.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.candidates import open_vectors
from deita_tasks.artifacts.parts import PartSet, StageParts
from deita_tasks.artifacts.pool import Pool
from deita_tasks.reporting.geometry import fit_plane
from deita_tasks.reporting.report import SAMPLE_POOL
from deita_tasks.reporting.statistics import pool_sample, with_decision
from deita_tasks.selecting.arrays import Doubles, Floats, IndexPairs, Indices
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.similarity.exact import (
    exact_similarities,
    largest_per_row,
    screening_error,
    true_pairs,
)

NEIGHBOURS = 5
BLOCK = 1_024
# Products of numbers in all pairs of a row and a selected row: 100,000 rows with 6,500 selected
# rows, of 384 numbers each.
MAX_PRODUCTS = 250e9


class Neighbours(NamedTuple):
    """The selected rows that are most like each of n rows, the most similar first.

    positions: int64 (n, NEIGHBOURS) among the n rows, -1 where there are fewer. similarities:
    float32 (n, NEIGHBOURS), NaN there.
    """

    positions: Indices
    similarities: Floats


class Similar(NamedTuple):
    """What the vectors of n rows say.

    ids: those of the rows that have a vector. places: float64 (n, 2), NaN for a vector that cannot
    be compared; None if the vectors do not span a plane. neighbours: None if nothing is selected,
    or there is too much to compute.
    """

    ids: pa.Array
    places: Doubles | None
    neighbours: Neighbours | None


def find_similar(pool: Pool, ledger: pa.Table, parts: PartSet) -> Similar | None:
    """Return what the stored vectors say of the rows of a ledger; None if there are none."""
    stage_parts = StageParts(part_set=parts, digests=parts.digests())
    ids = _ids_with_vector(pool, ledger, stage_parts)
    if not len(ids):
        return None
    sample = pool_sample(ledger, SAMPLE_POOL)
    sample_positions = _positions(sample["id"], ids)
    selected = with_decision(ledger, "selected")
    selected_positions = np.sort(_positions(selected["id"], ids))
    rows = len(ids)
    column = pa.chunked_array([ids])
    with open_vectors(pool, column, {"embedding": stage_parts}) as vectors:
        reader = EmbeddingReader(vectors, rows)
        places = _places(reader, rows, sample_positions)
        neighbours = _neighbours(reader, rows, selected_positions)
    return Similar(ids, places, neighbours)


def _ids_with_vector(pool: Pool, ledger: pa.Table, parts: StageParts) -> pa.Array:
    """Return the ids of the ledger that have a vector; with lazy evaluation not all do."""
    ids = pc.unique(ledger["id"].drop_null())
    stored = []
    for table in parts.tables(["id", "problem"]):
        has_vector = pc.is_null(table["problem"])
        with_vector = table["id"].filter(has_vector)
        stored += with_vector.chunks
    stored_keys = pa.chunked_array(stored, pa.string())
    keys = pool.keys_of(ids, parts.part_set.row_key)
    is_stored = pc.is_in(keys, value_set=stored_keys)
    return ids.filter(is_stored)


def _positions(ids: pa.ChunkedArray, among: pa.Array) -> Indices:
    """Return the positions of `ids` in `among`, without those that are not there."""
    places = pc.index_in(ids, value_set=among)
    places = places.drop_null()
    return np.asarray(places.to_numpy(), np.int64)


def _blocks(rows: int) -> Iterator[Indices]:
    """Yield the positions of n rows, BLOCK at a time."""
    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        yield np.arange(start, end)


def _places(reader: EmbeddingReader, rows: int, sample: Indices) -> Doubles | None:
    """Return the places of all rows in the plane of a sample, float64 (n, 2)."""
    units, is_usable = reader.read(sample)
    plane = fit_plane(units[is_usable])
    if plane is None:
        return None
    places = np.full((rows, 2), np.nan)
    for block in _blocks(rows):
        units, is_usable = reader.read(block)
        usable = block[is_usable]
        places[usable] = plane.place(units[is_usable])
    return places


def _neighbours(reader: EmbeddingReader, rows: int, selected: Indices) -> Neighbours | None:
    """Return the selected rows most like each of n rows.

    selected: their positions, int64 (k,), ascending. None if there are none, or too many.
    """
    products = rows * len(selected) * reader.dimensions
    if not products or products > MAX_PRODUCTS:
        return None
    units, is_usable = reader.read(selected)
    kept = KeptUnits(units[is_usable], selected[is_usable])
    positions = np.full((rows, NEIGHBOURS), -1)
    similarities = np.full((rows, NEIGHBOURS), np.nan, np.float32)
    for block in _blocks(rows):
        units, is_usable = reader.read(block)
        usable = block[is_usable]
        nearest = _nearest(units[is_usable], usable, kept)
        for rank, (values, neighbours) in enumerate(nearest):
            similarities[usable, rank] = values
            positions[usable, rank] = neighbours
    return Neighbours(positions, similarities)


class KeptUnits(NamedTuple):
    """Normalised vectors of the selected rows, float32 (k, d), and their positions, int64 (k,)."""

    units: Floats
    positions: Indices


def _nearest(units: Floats, rows: Indices, kept: KeptUnits) -> Iterator[tuple[Floats, Indices]]:
    """Yield the similarity and the position of the most similar selected row of each of b rows.

    Then of the second, and so on; NaN and -1 where there is none. A row is no neighbour of itself.

    units: float32 (b, d), normalised. rows: int64 (b,), their positions.
    """
    count = min(NEIGHBOURS, len(kept.positions))
    if not count or not len(rows):
        return
    pairs = _close_pairs(units, rows, kept, count)
    similarities = exact_similarities(units, kept.units, pairs)
    for _ in range(count):
        largest, index = largest_per_row(similarities, pairs, len(rows))
        is_missing = index < 0
        largest[is_missing] = np.nan
        positions = kept.positions[index]
        positions[is_missing] = -1
        yield largest, positions
        row, other = pairs
        is_left = other != index[row]
        pairs = row[is_left], other[is_left]
        similarities = similarities[is_left]


def _close_pairs(units: Floats, rows: Indices, kept: KeptUnits, count: int) -> IndexPairs:
    """Return the pairs of a row and a selected row that may be among the row's `count` closest.

    A float32 product is off by at most the screening error, so a row whose product is below the
    `count` largest by more than two of them is not among these.
    """
    products = units @ kept.units.T
    is_same = rows[:, None] == kept.positions
    products[is_same] = -np.inf
    in_order = np.partition(products, -count, axis=1)
    least = in_order[:, -count]
    error = np.float32(screening_error(units.shape[1]))
    threshold = least - 2 * error
    is_close = products >= threshold[:, None]
    return true_pairs(is_close & ~is_same)
