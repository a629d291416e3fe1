"""The scores of the distinct rows of a pool, from what each stage has computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.artifacts.part_tables import vector_problems
from deita_tasks.artifacts.parts import WIDTH, StageParts
from deita_tasks.artifacts.pool import Pool
from deita_tasks.conversations import RowKey
from deita_tasks.records import SCORE_KINDS
from deita_tasks.selecting.arrays import Doubles, Indices, Mask
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.bounds import HIGHEST, LOWEST, PartialScores, bound_scores
from deita_tasks.selecting.evol import FlatColumn, TurnAggregation, expression_scores, flatten
from deita_tasks.selecting.expression import LENGTH, Expression

EMBEDDING = "embedding"
# Scores by name, each a value a turn, or one for the whole row.
NAMED_VALUES = pa.list_(pa.struct({"name": pa.string(), "values": pa.list_(pa.float32())}))
HIGH_IFD = "ifd: not below"

SCORES = pa.schema(
    {
        "id": pa.string(),
        "complexity": pa.list_(pa.float32()),
        "quality": pa.list_(pa.float32()),
        # With rank_by, its value.
        "evol_score": pa.float64(),  # NaN if there is none, or a score is not computed
        # Bounds of the evol score, equal where it is known; NaN for a row that cannot have one.
        "evol_lower": pa.float64(),
        "evol_upper": pa.float64(),
        "truncated": pa.bool_(),
        "problem": pa.string(),
        "scores": NAMED_VALUES,  # the other scores that rank_by names
    }
)
VALUE_TYPES = {
    "id": pa.string(),
    "cut": pa.int32(),
    "problem": pa.string(),
    "values": pa.list_(pa.float32()),
    WIDTH: pa.int32(),
}


def value_columns(stage: str) -> list[str]:
    """Return the columns of a stage's parts that scores need: of vectors, only their width."""
    return ["id", "cut", "problem", WIDTH if stage == EMBEDDING else "values"]


class ComputedValues:
    """What is computed of one stage, for the n distinct rows of a pool.

    Several rows may share a key, and so a value. `keys`: each once, with the `positions` of their
    first rows in the pool, int64. `key_of_row`: int64 (n,), the number of each row's key.
    """

    def __init__(self, stage: str, pool: Pool, row_key: RowKey) -> None:
        ids, _ = pool.distinct
        self.stage = stage
        self.keys, self.positions = pool.distinct_by(row_key)
        self._index = pd.Index(self.keys.to_pandas())
        keys = pool.keys_of(ids, row_key)
        self.key_of_row = self._index.get_indexer(keys.to_pandas())
        self._place_of_key = np.full(len(self.keys), -1, np.int64)  # in all tables, in a row
        self._tables: list[pa.Table] = []
        self._rows = 0

    @classmethod
    def read(cls, stage: str, pool: Pool, parts: StageParts) -> ComputedValues:
        """Return the values in some parts of a stage.

        A row in none of them is not computed. Raises StorageError for a damaged part.
        """
        values = cls(stage, pool, parts.part_set.row_key)
        for table in parts.tables(value_columns(stage)):
            values.add(table)
        return values

    def add(self, table: pa.Table) -> Indices:
        """Add rows of a part (`value_columns`); return which rows of the pool they belong to.

        int64, ascending; several rows may share a value. A key that comes again has the new one.
        """
        keys = self._index.get_indexer(table["id"].to_pandas())
        is_of_pool = keys >= 0
        keys = keys[is_of_pool]
        self._place_of_key[keys] = self._rows + np.arange(len(keys))
        self._tables.append(table.filter(pa.array(is_of_pool)))
        self._rows += len(keys)
        is_added = np.zeros(len(self.keys), np.bool_)
        is_added[keys] = True
        return np.flatnonzero(is_added[self.key_of_row])

    @property
    def is_computed(self) -> Mask:
        """Which rows have a value, or a reason for none: bool (n,)."""
        return np.asarray(self._place_of_key[self.key_of_row] >= 0)

    def missing_keys(self, rows: Indices) -> Indices:
        """Return the numbers of the keys of `rows` that are not computed, each once, ascending."""
        keys = np.unique(self.key_of_row[rows])
        is_missing = self._place_of_key[keys] < 0
        return np.asarray(keys[is_missing], np.int64)

    def count_missing(self, keys: pa.ChunkedArray) -> int:
        """Return how many of some keys are of this pool and not computed."""
        numbers = self._index.get_indexer(keys.to_pandas())
        places = self._place_of_key[numbers[numbers >= 0]]
        return int(np.count_nonzero(places < 0))

    def take(self, rows: Indices, is_visible: Mask | None = None) -> pa.Table:
        """Return the values of m rows (`value_columns`).

        Nulls for a row that is not computed, or not visible. is_visible: bool (m,).
        """
        places = self._place_of_key[self.key_of_row[rows]]
        is_hidden = places < 0
        if is_visible is not None:
            is_hidden |= ~is_visible
        columns = value_columns(self.stage)
        schema = pa.schema([(name, VALUE_TYPES[name]) for name in columns])
        tables = [table.select(columns).cast(schema) for table in self._tables]
        whole = pa.concat_tables([schema.empty_table(), *tables])
        return whole.take(pa.array(places, mask=is_hidden))


class RankRule(NamedTuple):
    """What ranks n rows: an expression of scores.

    lengths: words in all turns, int64 (n,). ifd_limit: what every IFD has to be below; None where
    the expression does not name it.
    """

    expression: Expression
    lengths: Indices
    ifd_limit: float | None

    @classmethod
    def of(cls, strategy: Selector, pool: Pool) -> RankRule | None:
        """Return the rule by which `strategy` ranks the distinct rows; None for the evol score."""
        if strategy.expression is None:
            return None
        _, positions = pool.distinct
        words = pool.index(["n_words"])["n_words"].to_numpy()
        return cls(strategy.expression, words[positions], strategy.ifd_limit)

    def scores(self, stages: Mapping[str, pa.Table], aggregation: TurnAggregation) -> Doubles:
        """Return the score of each row, float64 (n,); NaN for a row without one."""
        columns = {}
        for name in self.expression.names:
            is_length = name == LENGTH
            columns[name] = self._words() if is_length else flatten(stages[name]["values"])
        scores = expression_scores(self.expression, aggregation, columns)
        return np.where(np.isfinite(scores), scores, np.nan)

    def _words(self) -> FlatColumn:
        """Return the lengths as a column with one value a row."""
        rows = len(self.lengths)
        has_none = np.zeros(rows, np.bool_)
        words = self.lengths.astype(np.float64)
        return FlatColumn(np.arange(rows + 1), words, has_none)

    def problems(self, stages: Mapping[str, pa.Table], scores: Doubles) -> pa.Array:
        """Return why a row is no candidate although it has all scores; null for the others."""
        reasons = np.full(len(scores), None, object)
        reasons[np.isnan(scores)] = f"rank_by: {self.expression.text} is not finite"
        if self.ifd_limit is not None:
            column = flatten(stages["ifd"]["values"])
            row_of_value = np.repeat(np.arange(len(scores)), np.diff(column.offsets))
            too_high = np.unique(row_of_value[column.values >= self.ifd_limit])
            reasons[too_high] = f"{HIGH_IFD} {self.ifd_limit:g}"
        return pa.array(reasons, pa.string())


def is_high_ifd(reason: str) -> bool:
    """Return whether a row is unscorable only for its IFD, as the method wants it."""
    return reason.startswith(HIGH_IFD)


def _named_values(stages: Mapping[str, pa.Table], rows: int) -> pa.Array:
    """Return NAMED_VALUES of n rows; null for a row without any."""
    names = [name for name in stages if name not in (*SCORE_KINDS, EMBEDDING)]
    if not names:
        return pa.nulls(rows, NAMED_VALUES)
    lists = [stages[name]["values"].combine_chunks() for name in names]
    is_valid = np.array([column.is_valid().to_numpy(zero_copy_only=False) for column in lists])
    structs = pa.StructArray.from_arrays(
        [pa.array(np.repeat(names, rows), pa.string()), pa.concat_arrays(lists)],
        fields=list(NAMED_VALUES.value_type),
    )
    places = np.arange(len(names) * rows).reshape(len(names), rows).T[is_valid.T]
    counts = is_valid.sum(axis=0)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()),
        structs.take(pa.array(places)),
        type=NAMED_VALUES,
        mask=pa.array(counts == 0),
    )


class PoolScores(NamedTuple):
    """SCORES of some rows, and how many of them a model read only in part, by stage."""

    table: pa.Table
    truncated: dict[str, int]


def assemble_scores(
    ids: pa.Array,
    turns: Indices,
    stages: Mapping[str, pa.Table],
    aggregation: TurnAggregation = "sum",
    rule: RankRule | None = None,
) -> PoolScores:
    """Return the scores of n rows. turns: int64 (n,). stages: what `ComputedValues.take` gives.

    rule: what ranks the rows instead of the evol score; it needs every score that it names.
    """
    problem = _stage_problems(stages, len(ids))
    if rule is None:
        bounds = _bound_evol_scores(stages, turns, aggregation)
    else:
        scores = rule.scores(stages, aggregation)
        bounds = ScoreBounds(scores, scores, scores)
        problem = pc.coalesce(problem, rule.problems(stages, scores))
    nothing = pa.nulls(len(ids), SCORES.field("complexity").type)
    columns: dict[str, Any] = {
        "id": ids,
        "scores": _named_values(stages, len(ids)),
        "evol_score": bounds.scores,
        "evol_lower": bounds.lower,
        "evol_upper": bounds.upper,
        "problem": problem,
    }
    for kind in SCORE_KINDS:
        columns[kind] = stages[kind]["values"] if kind in stages else nothing
    truncated = {stage: _is_truncated(table) for stage, table in stages.items()}
    is_truncated = np.zeros(len(ids), np.bool_)
    for rows in truncated.values():
        is_truncated |= rows
    columns["truncated"] = is_truncated
    counts = {stage: int(rows.sum()) for stage, rows in truncated.items()}
    return PoolScores(pa.table(columns, schema=SCORES), counts)


class ScoreBounds(NamedTuple):
    """What rows are ranked by: float64 (n,) each.

    scores: NaN where a row has none, or where it is not computed. lower, upper: bounds of it.
    """

    scores: Doubles
    lower: Doubles
    upper: Doubles


def _bound_evol_scores(
    stages: Mapping[str, pa.Table], turns: Indices, aggregation: TurnAggregation
) -> ScoreBounds:
    """Return the evol score of each row and its bounds: float64 (n,) each.

    Where complexity and quality are computed, all three are the same; elsewhere the bounds put the
    lowest and the highest score in place of what is missing, and the score is NaN.
    """
    complexity = partial_scores(stages["complexity"])
    quality = partial_scores(stages["quality"])
    rows = (aggregation, complexity, quality, turns)
    lower = bound_scores("evol", *rows, LOWEST)
    upper = bound_scores("evol", *rows, HIGHEST)
    is_complete = complexity.is_computed & quality.is_computed
    scores = np.where(is_complete, lower, np.nan)
    return ScoreBounds(scores, lower, upper)


def _stage_problems(stages: Mapping[str, pa.Table], rows: int) -> pa.ChunkedArray:
    """Return why a row has no value of a stage, the first that has a reason; null for none."""
    problem = pa.chunked_array([pa.nulls(rows, pa.string())])
    for stage, table in stages.items():
        reason = vector_problems(table) if stage == EMBEDDING else table["problem"]
        stage_problem = pc.binary_join_element_wise(stage, reason, ": ")
        problem = pc.coalesce(problem, stage_problem)
    return problem


def _is_truncated(table: pa.Table) -> Mask:
    """Return which rows a model read only in part."""
    cut = table["cut"].fill_null(0)
    return np.asarray(cut.to_numpy() > 0)


def partial_scores(table: pa.Table) -> PartialScores:
    """Return the scores in what `ComputedValues.take` gives: a row with an id is computed."""
    return PartialScores(table["values"], table["id"].is_valid().to_numpy())


def turns_of(pool: Pool) -> Indices:
    """Return the number of scored turns of each distinct row: int64 (n,)."""
    _, positions = pool.distinct
    column = pool.index(["n_pairs"])["n_pairs"].to_numpy()
    return np.asarray(column[positions], np.int64)
