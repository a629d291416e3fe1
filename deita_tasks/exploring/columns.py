"""The columns of the explorer's table that come from a ledger and from the index of a pool.

Names are those of the ledger where it has the same values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.pool import Pool
from deita_tasks.exploring.conversations import language_names, read_columns
from deita_tasks.exploring.numbers import mean_of_turns, named_scores, token_counts
from deita_tasks.exploring.opening import ExplorerSource
from deita_tasks.exploring.similar import Neighbours, Similar
from deita_tasks.records import SCORE_KINDS
from deita_tasks.selecting.arrays import Indices

# By name; all have a value for each row of the table.
Columns: TypeAlias = dict[str, pa.Array]


def column(table: pa.Table, name: str) -> pa.Array:
    """Return a column in one piece, without the chunks that files have."""
    return table[name].combine_chunks()


def number_columns(source: ExplorerSource, ledger: pa.Table) -> Columns:
    """Return rank, scores and tokens of each row of the ledger.

    Scores of several turns are their mean. A score that is not computed is null.
    """
    columns = {}
    for name in ("rank", "evol_score"):
        columns[name] = column(ledger, name)
    for name in SCORE_KINDS:
        scores = column(ledger, name)
        columns[name] = mean_of_turns(scores)
    others = column(ledger, "scores")
    columns |= named_scores(others)
    if source.tokens is not None:
        ids = column(ledger, "id")
        columns["tokens"] = token_counts(source.tokens, ids)
    return columns


def nearest_columns(source: ExplorerSource, ledger: pa.Table, similar: Similar | None) -> Columns:
    """Return the selected row nearest to each row, and how near it is: an id and a number.

    For a row that is too similar, the row that blocked it, as the ledger has it. For any other, the
    most similar by the vectors of the store, where these compare by cosine.
    """
    ids = column(ledger, "nearest_id")
    values = column(ledger, "similarity")
    if source.compares_by_distance:
        return {"nearest_id": ids, "nearest_distance": values}
    if similar is not None and similar.neighbours is not None:
        row_ids = column(ledger, "id")
        rows = pc.index_in(row_ids, value_set=similar.ids)
        best_ids, best_values = _best(similar.ids, similar.neighbours)
        other_ids = best_ids.take(rows)
        other_values = best_values.take(rows)
        ids = pc.coalesce(ids, other_ids)
        values = pc.coalesce(values, other_values)
    return {"nearest_id": ids, "nearest_similarity": values}


def _best(ids: pa.Array, neighbours: Neighbours) -> tuple[pa.Array, pa.Array]:
    """Return the id of the first neighbour of each of n rows, and its similarity.

    ids: of the n rows. Null for a row without a neighbour.
    """
    positions = neighbours.positions[:, 0]
    is_missing = positions < 0
    best = pa.array(positions, mask=is_missing)
    similarities = neighbours.similarities[:, 0]
    values = pa.array(similarities, mask=is_missing)
    return ids.take(best), values


def length_columns(pool: Pool, positions: Indices) -> Columns:
    """Return how long each row is: its turns, and the words in them.

    positions: of the rows in the pool, int64 (n,).
    """
    names = {"turns": "n_turns", "words": "n_words"}
    index = pool.index(list(names.values()))
    rows = _good_positions(positions, len(index))
    columns = {}
    for name, of_pool in names.items():
        lengths = column(index, of_pool)
        columns[name] = lengths.take(rows)
    return columns


def category_columns(pool: Pool, ledger: pa.Table, positions: Indices) -> Columns:
    """Return what sorts rows: the decision, and facts that many rows share.

    positions: of the rows in the pool, int64 (n,).
    """
    index = pool.index(["language"])
    codes = column(index, "language")
    languages = language_names(codes)
    rows = _good_positions(positions, len(index))
    uris = column(ledger, "source_uri")
    is_truncated = column(ledger, "truncated")
    return {
        "decision": column(ledger, "decision"),
        "source": _file_names(uris),
        "language": languages.take(rows),
        "stratum": column(ledger, "stratum"),
        "truncated": pc.if_else(is_truncated, "yes", "no"),
    }


def input_columns(pool: Pool, positions: Indices) -> Columns:
    """Return the other columns of the input that have few values.

    positions: of the rows in the pool, int64 (n,).
    """
    rows = _good_positions(positions, pool.summary.good)
    columns = {}
    for name, values in read_columns(pool).items():
        columns[name] = values.take(rows)
    return columns


def _good_positions(positions: Indices, good: int) -> pa.Array:
    """Return the positions of good rows; null for bad rows, which come after them."""
    is_good = (positions >= 0) & (positions < good)
    return pa.array(positions, mask=~is_good)


def merge(groups: Iterable[Columns]) -> Columns:
    """Return the columns of all groups, in their order.

    Of two with the same name, the later is called pool_NAME.
    To DuckDB, names that differ in capitals alone are the same. Leaves out a column without values.
    """
    merged: Columns = {}
    names = {"text", "nearest_text"}
    for group in groups:
        for name, values in group.items():
            free_name = name
            while free_name.lower() in names:
                free_name = f"pool_{free_name}"
            lower = free_name.lower()
            names.add(lower)
            if values.null_count < len(values):
                merged[free_name] = values
    return merged


def _file_names(uris: pa.Array) -> pa.Array:
    """Return the names of files, without their folders.

    Their URIs where two files have the same name.
    """
    encoded = uris.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    names = [uri.rsplit("/", 1)[-1] for uri in distinct]
    if len(set(names)) < len(names):
        return uris
    array = pa.array(names, pa.string())
    return array.take(encoded.indices)
