"""Scores and token counts, a number for each row; null where it is not known, never 0."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.parts import PartSet


def mean_of_turns(scores: pa.Array) -> pa.Array:
    """Return the mean of each list of float32; null without a list, or with an empty one."""
    lengths = pc.list_value_length(scores).fill_null(0).to_numpy(zero_copy_only=False)
    values = pc.list_flatten(scores).to_numpy(zero_copy_only=False).astype(np.float64)
    rows = np.repeat(np.arange(len(scores)), lengths)
    sums = np.bincount(rows, values, minlength=len(scores))
    means = sums / np.maximum(lengths, 1)
    is_unknown = (lengths == 0) | ~np.isfinite(means)
    return pa.array(means, mask=is_unknown)


def named_scores(scores: pa.Array) -> dict[str, pa.Array]:
    """Return the means of the other scores that rank_by names (NAMED_VALUES), by name."""
    rows = pc.list_parent_indices(scores)
    names, values = pc.list_flatten(scores).flatten()
    means = mean_of_turns(values)
    every_row = pa.array(np.arange(len(scores)))
    columns = {}
    for name in pc.unique(names).to_pylist():
        is_named = pc.equal(names, name)
        places = pc.index_in(every_row, value_set=rows.filter(is_named).cast(pa.int64()))
        columns[name] = means.filter(is_named).take(places)
    return columns


def token_counts(parts: PartSet, ids: pa.Array) -> pa.Array:
    """Return the tokens of each of `ids`, int64; null where they are not counted."""
    tables = list(parts.tables(parts.digests(), ["id", "values"]))
    if not tables:
        return pa.nulls(len(ids), pa.int64())
    counted = pa.concat_tables(tables).filter(pc.field("values").is_valid()).combine_chunks()
    tokens = pc.list_element(counted["values"], 0).combine_chunks()
    places = pc.index_in(ids, value_set=counted["id"].combine_chunks())
    return pc.cast(tokens.take(places), pa.int64())
