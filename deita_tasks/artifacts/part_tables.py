"""The tables in parts: from a model's output to a part, and from parts to vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deita_tasks.artifacts.parts import WIDTH, StageParts
from deita_tasks.errors import StorageError
from deita_tasks.models.token_counter import RowTokens
from deita_tasks.records import ModelOutput
from deita_tasks.selecting.arrays import Floats, Indices

BLOCK_ROWS = 4096  # vectors looked at at a time

EMPTY = pa.schema({"id": pa.string(), "problem": pa.string(), WIDTH: pa.int32()}).empty_table()


def score_table(
    ids: Sequence[str],
    counts: Sequence[int],
    scores: ModelOutput,
    row_problems: Mapping[int, str] | None = None,
) -> pa.Table:
    """Return a part of scores.

    scores: of all conversations one after the other, of their pairs or of each as a whole;
    `counts[i]` of them belong to ids[i]. row_problems: why a conversation as a whole has no score,
    by row.

    A conversation with an unscored pair has no scores at all (`values` is null) and says why: a
    sum over fewer turns would be made up.
    """
    ends = np.cumsum(np.asarray(counts, dtype=np.int64))
    problems: dict[int, str] = dict(row_problems or {})
    for pair, reason in sorted(scores.problems.items()):
        row = int(np.searchsorted(ends, pair, side="right"))
        turn = pair - int(ends[row] - counts[row]) + 1
        problems.setdefault(row, f"turn {turn}: {reason}")
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    truncated_until = np.cumsum(scores.truncated_tokens, dtype=np.int64)
    truncated = np.concatenate([[0], truncated_until])
    has_problem = [row in problems for row in range(len(ids))]
    no_value = pa.array(has_problem, pa.bool_())
    values = pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(scores.values, pa.float32()), mask=no_value
    )
    return _part(ids, values, np.diff(truncated[offsets]), problems)


def token_table(ids: Sequence[str], counts: Sequence[RowTokens | str]) -> pa.Table:
    """Return a part of token counts: [tokens, before_answer], or why there is none.

    counts[i] belongs to ids[i]. Float32, as in all parts, is exact up to 16,777,216 tokens.
    """
    problems = {}
    values: list[list[int] | None] = []
    for row, count in enumerate(counts):
        if isinstance(count, str):
            problems[row] = count
            values.append(None)
        else:
            values.append(list(count))
    table = pa.array(values, pa.list_(pa.float32()))
    nothing_cut = np.zeros(len(ids), np.int32)
    return _part(ids, table, nothing_cut, problems)


def vector_table(ids: Sequence[str], vectors: ModelOutput) -> pa.Table:
    """Return a part of embeddings: row i of `vectors.values` (n, d) belongs to ids[i].

    `values` is null for a row with a problem.
    """
    rows, width = vectors.values.shape
    flat = pa.array(vectors.values.reshape(-1), pa.float32())
    has_problem = [row in vectors.problems for row in range(rows)]
    no_value = pa.array(has_problem, pa.bool_())
    values = pa.FixedSizeListArray.from_arrays(flat, width, mask=no_value)
    return _part(ids, values, vectors.truncated_tokens, vectors.problems)


def _part(
    ids: Sequence[str], values: pa.Array, truncated: NDArray[Any], problems: Mapping[int, str]
) -> pa.Table:
    """Return a part of n rows: the columns `id`, `values`, `cut` and `problem`.

    truncated: tokens that were cut, (n,). problems: why a row has no value, by its number from 0.
    """
    reasons = [problems.get(row) for row in range(len(ids))]
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "values": values,
            "cut": pa.array(truncated, pa.int32()),
            "problem": pa.array(reasons, pa.string()),
        }
    )


def place_vectors(parts: StageParts, keys: Sequence[str], target: Floats) -> None:
    """Fill row i of `target` (n, d) with the vector of keys[i]; a key may come several times.

    NaN where it has none of d components. `target` may be a memory map. Raises StorageError for a
    key that is in no part.
    """
    target[:] = np.nan
    key_of_row, distinct_keys = pd.factorize(pd.Index(keys))
    first_row = np.unique(key_of_row, return_index=True)[1]
    is_present = np.zeros(len(distinct_keys), np.bool_)
    for table in parts.tables(["id", "values"]):
        found = distinct_keys.get_indexer(table["id"].to_pandas())
        has_place = found >= 0
        is_present[found[has_place]] = True
        lists = table["values"].combine_chunks()
        if lists.type.list_size != target.shape[1]:
            continue
        has_vector = has_place & table["values"].is_valid().to_numpy()
        if not has_vector.all():
            lists = lists.filter(pa.array(has_vector))
        vectors = lists.flatten().to_numpy().reshape(-1, target.shape[1])
        target[first_row[found[has_vector]]] = vectors
    if not is_present.all():
        missing = int((~is_present[key_of_row]).sum())
        raise StorageError(
            f"{parts.part_set.uri}: {missing} of {len(key_of_row)} rows are in no part; run again: "
            "they will be computed"
        )
    _repeat_rows(target, first_row[key_of_row])


def _repeat_rows(target: Floats, source: Indices) -> None:
    """Fill each row i of `target` whose source[i] is another row with that one, a block a time."""
    repeats = np.flatnonzero(source != np.arange(len(source)))
    for start in range(0, len(repeats), BLOCK_ROWS):
        rows = repeats[start : start + BLOCK_ROWS]
        target[rows] = target[source[rows]]


def vector_width(parts: StageParts, keys: Sequence[str]) -> int:
    """Return the width d of most of the vectors of `keys`; 0 if none has a vector."""
    table = pa.concat_tables([EMPTY, *parts.tables(EMPTY.column_names)])
    return _most_common_width(
        table.filter(pc.is_in(table["id"], value_set=pa.array(keys, pa.string())))
    )


def vector_problems(table: pa.Table) -> pa.ChunkedArray:
    """Return why each row of `table` (problem, WIDTH) has no vector to compare, or null.

    The reason is its part's, or that most vectors have another width. A row that is not computed,
    which has no width, has no reason.
    """
    common = _most_common_width(table)
    reasons = [
        f"its vector has {width} numbers, where most have {common}"
        if width not in (None, common)
        else None
        for width in table[WIDTH].to_pylist()
    ]
    return pc.coalesce(table["problem"], pa.array(reasons, pa.string()))


def _most_common_width(table: pa.Table) -> int:
    """Return the width of most of the vectors; the largest where two are as common."""
    usable = table.filter(pc.is_null(table["problem"]))
    widths = usable[WIDTH].to_pandas().value_counts()
    if not len(widths):
        return 0
    commonest = widths[widths == widths.max()]
    return int(commonest.index.max())
