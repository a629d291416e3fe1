"""Scores and token counts, a number for each row; null where it is not known, never 0."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.parts import PartSet


def mean_of_turns(scores: pa.Array) -> pa.Array:
    """Return the mean of each list of float32, as float64.

    Null for a row without a list, as where a score is not computed, and for an empty list.
    """
    rows = pc.list_parent_indices(scores)
    values = pc.list_flatten(scores)
    values = values.cast(pa.float64())
    flat = pa.table({"row": rows, "value": values})
    groups = flat.group_by("row", use_threads=False)
    means = groups.aggregate([("value", "mean")])
    places = _places(means["row"], len(scores))
    of_rows = means["value_mean"].take(places)
    return of_rows.combine_chunks()


def _places(rows: pa.Array | pa.ChunkedArray, count: int) -> pa.Array:
    """Return where each of `count` rows stands in `rows`; null for a row that is not there."""
    every_row = pa.array(range(count), rows.type)
    return pc.index_in(every_row, value_set=rows)


def named_scores(scores: pa.Array) -> dict[str, pa.Array]:
    """Return the other scores that rank_by names, by name: the mean of the turns of each row.

    scores: NAMED_VALUES of each row. Null for a row that does not have the score.
    """
    rows = pc.list_parent_indices(scores)
    flat = pc.list_flatten(scores)
    names, values = flat.flatten()
    means = mean_of_turns(values)
    columns = {}
    for name in pc.unique(names).to_pylist():
        is_named = pc.equal(names, name)
        rows_of_name = rows.filter(is_named)
        places = _places(rows_of_name, len(scores))
        means_of_name = means.filter(is_named)
        columns[name] = means_of_name.take(places)
    return columns


def token_counts(parts: PartSet, ids: pa.Array) -> pa.Array:
    """Return the tokens of each of `ids`, int64; null where they are not counted.

    parts: token counts. Their values are the tokens, and those before the first answer.
    """
    tables = list(parts.tables(parts.digests(), ["id", "values"]))
    if not tables:
        return pa.nulls(len(ids), pa.int64())
    counted = pa.concat_tables(tables)
    counted = counted.filter(pc.field("values").is_valid())
    values = counted["values"].combine_chunks()
    tokens = pc.list_element(values, 0)
    counted_ids = counted["id"].combine_chunks()
    places = pc.index_in(ids, value_set=counted_ids)
    of_ids = tokens.take(places)
    return of_ids.cast(pa.int64())
