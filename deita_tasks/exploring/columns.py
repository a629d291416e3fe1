"""The columns of the explorer's table that come from a ledger and from the index of a pool.

Names are those of the ledger where it has the same values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.pool import Pool
from deita_tasks.exploring.conversations import language_names, read_columns
from deita_tasks.exploring.numbers import mean_of_turns, named_scores, token_counts
from deita_tasks.exploring.opening import Explored
from deita_tasks.exploring.similar import Similar
from deita_tasks.selecting.arrays import Indices

Columns: TypeAlias = dict[str, pa.Array]


def column(table: pa.Table, name: str) -> pa.Array:
    """Return a column in one piece."""
    return table[name].combine_chunks()


def number_columns(explored: Explored, ledger: pa.Table) -> Columns:
    """Return rank and scores; those of several turns are their mean."""
    columns = {
        "rank": column(ledger, "rank"),
        "evol_score": column(ledger, "evol_score"),
        "complexity": mean_of_turns(column(ledger, "complexity")),
        "quality": mean_of_turns(column(ledger, "quality")),
    }
    columns |= named_scores(column(ledger, "scores"))
    if explored.tokens is not None:
        columns["tokens"] = token_counts(explored.tokens, column(ledger, "id"))
    return columns


def nearest_columns(explored: Explored, ledger: pa.Table, similar: Similar | None) -> Columns:
    """Return the selected row nearest to each row, and how near it is.

    For a row that is too similar, the row that blocked it, as the ledger has it. For any other, the
    most similar by the vectors of the store, where these compare by cosine.
    """
    ids = column(ledger, "nearest_id")
    values = column(ledger, "similarity")
    if explored.compares_by_distance:
        return {"nearest_id": ids, "nearest_distance": values}
    if similar is not None and similar.neighbours is not None:
        rows = pc.index_in(column(ledger, "id"), value_set=similar.ids)
        best = similar.neighbours.positions[:, 0]
        positions = pa.array(best, mask=best < 0)
        ids = pc.coalesce(ids, similar.ids.take(positions.take(rows)))
        similarities = similar.neighbours.similarities[:, 0]
        similarity = pa.array(similarities, mask=np.isnan(similarities))
        values = pc.coalesce(values, similarity.take(rows))
    return {"nearest_id": ids, "nearest_similarity": values}


def length_columns(pool: Pool, positions: Indices) -> Columns:
    """Return how long each row is."""
    index = pool.index(["n_turns", "n_words"])
    rows = _good_positions(positions, len(index))
    return {
        "turns": column(index, "n_turns").take(rows),
        "words": column(index, "n_words").take(rows),
    }


def category_columns(pool: Pool, ledger: pa.Table, positions: Indices) -> Columns:
    """Return what sorts rows: the decision, and facts of few values."""
    language = column(pool.index(["language"]), "language")
    rows = _good_positions(positions, len(language))
    return {
        "decision": column(ledger, "decision"),
        "source": _file_names(column(ledger, "source_uri")),
        "language": language_names(language).take(rows),
        "stratum": column(ledger, "stratum"),
        "truncated": _yes_or_no(column(ledger, "truncated")),
    }


def input_columns(pool: Pool, positions: Indices) -> Columns:
    """Return the other columns of the input that have few values."""
    rows = _good_positions(positions, pool.summary.good)
    return {name: values.take(rows) for name, values in read_columns(pool).items()}


def _good_positions(positions: Indices, good: int) -> pa.Array:
    """Return the positions of good rows; null for bad rows, which come after them."""
    return pa.array(positions, mask=(positions < 0) | (positions >= good))


def merge(groups: Iterable[Columns]) -> Columns:
    """Return the columns of all groups. Of two with the same name, the later is called pool_NAME.

    To DuckDB, names that differ in capitals alone are the same. Leaves out a column without values.
    """
    merged: Columns = {}
    names = {"text", "nearest_text"}
    for group in groups:
        for name, values in group.items():
            while name.lower() in names:
                name = f"pool_{name}"
            names.add(name.lower())
            if values.null_count < len(values):
                merged[name] = values
    return merged


def _yes_or_no(values: pa.Array) -> pa.Array:
    return pc.if_else(values, "yes", "no")


def _file_names(uris: pa.Array) -> pa.Array:
    """Return the names of files; their URIs where two have the same name."""
    encoded = uris.dictionary_encode()
    names = [uri.rsplit("/", 1)[-1] for uri in encoded.dictionary.to_pylist()]
    if len(set(names)) < len(names):
        return uris
    return pa.array(names, pa.string()).take(encoded.indices)
