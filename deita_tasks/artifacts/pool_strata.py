"""The strata of a pool: its distinct rows by the values of a column."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.pool import Pool
from deita_tasks.conversations import Conversation
from deita_tasks.errors import UsageError
from deita_tasks.manifest import StratumCounts
from deita_tasks.selecting.arrays import Indices
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.strata import Sizes, Strata, add_tokens
from deita_tasks.strict_json import JSON

ABSENT = object()
CLUSTER = "cluster"


def strata_of(
    pool: Pool, strategy: Selector, sizes_of: Callable[[list[str]], Sizes] | None = None
) -> Strata | None:
    """Return the strata of the distinct rows of `pool`; None if a column does not make them.

    sizes_of: for a budget in tokens, the tokens of rows by their ids. Raises UsageError for a
    column that some row does not have, or a mix that does not fit.
    """
    column = strategy.strata_column
    if column is None or not strategy.has_strata:
        return None
    ids, _ = pool.distinct
    sizes = None
    if sizes_of is not None and strategy.divides_budget:
        sizes = sizes_of(ids.to_pylist())
    return strategy.divide(column_texts(pool, ids, column), sizes)


def column_texts(pool: Pool, ids: pa.Array | pa.ChunkedArray, column: str) -> list[str]:
    """Return the value of a column of each of `ids`: a text as it is, anything else as JSON.

    `a.b` is the value b of the column a, unless a column has this name. Raises UsageError for a
    column that some row does not have.
    """
    if column == "source_uri":
        uris: list[str] = columns_of(pool, ids, ["source_uri"])["source_uri"].to_pylist()
        return uris
    values = column_values(pool, ids, column)
    missing = sum(value is ABSENT for value in values)
    if missing:
        raise UsageError(
            f"column {column!r}: {missing:,} of {len(values):,} rows have no such column; "
            "expected a column of every row"
        )
    return [_text(value) for value in values]


def column_values(pool: Pool, ids: pa.Array | pa.ChunkedArray, column: str) -> list[JSON | object]:
    """Return the value of a column of each of `ids`; ABSENT for a row without it.

    `a.b` is the value b of the column a, unless a column has this name.
    """
    texts = columns_of(pool, ids, ["extra"])["extra"].to_pylist()
    return [_value_at(json.loads(text) if text else {}, column) for text in texts]


def label_of(row: Conversation, column: str) -> str | None:
    """Return the value of a column of a row, as `column_texts` does; None for one without it."""
    if column == "source_uri":
        return row.source.uri
    value = _value_at(row.extra, column)
    return None if value is ABSENT else _text(value)


def columns_of(pool: Pool, ids: pa.Array | pa.ChunkedArray, columns: list[str]) -> pa.Table:
    """Return columns of the pool for `ids`, in their order, each from its first row in the pool.

    The column `id` comes first.
    """
    table = pool.index(["id", *columns])
    pool_ids = table["id"].combine_chunks()
    first = pc.index_in(ids, value_set=pool_ids)
    return table.take(first)


def _value_at(columns: Mapping[str, JSON], name: str) -> JSON | object:
    """Return the value that `name` leads to through nested columns, ABSENT if there is none.

    A column that is there with the value null gives None.
    """
    if name in columns:
        return columns[name]
    first, dot, rest = name.partition(".")
    inner = columns.get(first)
    if not dot or not isinstance(inner, Mapping):
        return ABSENT
    return _value_at(inner, rest)


def _text(value: JSON | object) -> str:
    """Return a text as it is, anything else as JSON; its keys are sorted, so equal values agree."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def count_strata(strategy: Selector, strata: Strata | None, kept: Indices) -> list[StratumCounts]:
    """Return what became of each stratum, in the order of its code; [] without strata.

    kept: int64, the positions of the rows that were kept. Limits are in tokens where a budget in
    tokens is divided, in rows elsewhere.
    """
    if strata is None:
        return []
    selected = np.bincount(strata.codes[kept], minlength=len(strata.names))
    maximum = np.minimum(strata.maximum, strategy.budget)
    tokens = None
    if strata.sizes is not None:
        maximum = np.minimum(strata.maximum, strata.sizes.budget)
        tokens = add_tokens(strata.take(kept))
    counts = []
    for number, name in enumerate(strata.names):
        stratum = StratumCounts(
            column=strategy.strata_column or CLUSTER,
            stratum=name,
            rows=int(strata.rows[number]),
            minimum=int(strata.minimum[number]),
            maximum=int(maximum[number]),
            selected=int(selected[number]),
            tokens=None if tokens is None else int(tokens[number]),
        )
        counts.append(stratum)
    return counts


def why_full(stratum: StratumCounts) -> str:
    """Return why a stratum that is full took no more rows."""
    name = f"{stratum.column} = {stratum.stratum}"
    if not stratum.maximum:
        return f"{name} gets no rows"
    if stratum.tokens is not None:
        return (
            f"{name} has {stratum.tokens:,} of at most {stratum.maximum:,} tokens, and its next "
            "row did not fit what was left for it"
        )
    if stratum.selected >= stratum.maximum:
        return f"{name} has all of its {stratum.maximum:,} rows"
    return f"{name} has {stratum.selected:,} rows, and the places left are reserved for others"
