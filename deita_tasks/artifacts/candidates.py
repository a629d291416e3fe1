"""The candidates of a selection: the rows of a pool that every stage has a value for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks import storage
from deita_tasks.artifacts.part_tables import BLOCK_ROWS, place_vectors, vector_width
from deita_tasks.artifacts.parts import StageParts
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_strata import columns_of
from deita_tasks.artifacts.scores import (
    ComputedValues,
    PoolScores,
    RankRule,
    assemble_scores,
    turns_of,
)
from deita_tasks.errors import StorageError
from deita_tasks.records import SelectorResult
from deita_tasks.selecting.arrays import Doubles, Floats, Mask
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.clusters import cluster_rows
from deita_tasks.selecting.evol import ranking_scores
from deita_tasks.selecting.strata import Sizes, Strata

MEMORY_BYTES = 2**29  # larger vectors go to a scratch file

StagesParts: TypeAlias = Mapping[str, StageParts]  # by stage: complexity, quality, embedding


@dataclass(frozen=True)
class Candidates:
    """n rows that every stage has a usable value for.

    all_scores: SCORES of every distinct row of the pool; a row with a `problem` is no candidate.
    vectors: float32 (n, d), row i belongs to ids[i], finite and not zero; None if no stage computes
    vectors.
    """

    pool: Pool
    all_scores: pa.Table
    vectors: Floats | None

    @cached_property
    def scores(self) -> pa.Table:
        """SCORES of the candidates, n rows."""
        return self.all_scores.filter(pc.is_null(self.all_scores["problem"]))

    @property
    def ids(self) -> list[str]:
        """Their ids, in the order of the rows of `vectors` and `scores`."""
        ids: list[str] = self.scores["id"].to_pylist()
        return ids

    def ranking(self, strategy: Selector) -> Doubles:
        """Return the score that `strategy` ranks by: float64 (n,). Length is in words."""
        if strategy.rank_by is not None:
            return np.asarray(self.scores["evol_score"].to_numpy(), np.float64)
        lengths = None
        if strategy.ranking == "length":
            words = columns_of(self.pool, self.scores["id"], ["n_words"])
            lengths = words["n_words"].to_numpy()
        return ranking_scores(
            strategy.ranking,
            strategy.evol_score,
            self.scores["complexity"],
            self.scores["quality"],
            lengths,
        )

    def select(self, strategy: Selector, strata: Strata | None = None) -> SelectorResult:
        """Return what `strategy` selects from the candidates, with a decision for each of them.

        strata: theirs (see `strata`); None for a strategy without any.
        """
        return strategy.select(self.ids, self.ranking(strategy), self.vectors, strata)

    def strata(
        self,
        strategy: Selector,
        of_pool: Strata | None,
        sizes_of: Callable[[list[str]], Sizes] | None = None,
    ) -> Strata | None:
        """Return the strata of the candidates; None if `strategy` has none.

        of_pool: the strata of the distinct rows, if a column makes them. sizes_of: for a budget in
        tokens, the tokens of rows by their ids.
        """
        if of_pool is not None:
            distinct_ids, _ = self.pool.distinct
            rows = pc.index_in(self.scores["id"], value_set=distinct_ids)
            return of_pool.take(rows.to_numpy())
        if strategy.clusters is None or self.vectors is None:
            return None
        labels = cluster_rows(self.ids, self.vectors, strategy.clusters)
        sizes = None
        if sizes_of is not None and strategy.divides_budget:
            sizes = sizes_of(self.ids)
        return strategy.divide(labels.tolist(), sizes)


@contextmanager
def all_candidates(
    pool: Pool, stage_parts: StagesParts, strategy: Selector | None = None
) -> Iterator[Candidates]:
    """Give the candidates among the distinct rows of `pool`, as `strategy` ranks them.

    Without a strategy, by the evol score. Raises StorageError for a row that is in no part.
    """
    scores = read_scores(pool, stage_parts, strategy)
    with open_candidates(pool, scores.table, stage_parts) as candidates:
        yield candidates


@contextmanager
def open_candidates(pool: Pool, scores: pa.Table, stage_parts: StagesParts) -> Iterator[Candidates]:
    """Give the candidates among the rows of `scores` (SCORES); closes their vectors at the end.

    A vector that cannot be compared makes its row unscorable here, so that this depends neither on
    the strategy nor on where the budget ends.
    """
    is_usable = pc.is_null(scores["problem"])
    ids = scores["id"].filter(is_usable)
    with open_vectors(pool, ids, stage_parts) as vectors:
        if vectors is not None:
            reasons = incomparable(vectors)
            vectors = _without_rows(vectors, list(reasons))
            by_id = {}
            for row, reason in reasons.items():
                row_id = ids[row].as_py()
                by_id[row_id] = reason
            scores = with_problems(scores, by_id)
        yield Candidates(pool, scores, vectors)


def incomparable(vectors: Floats) -> dict[int, str]:
    """Return why a vector has no cosine, by its row: it is zero, or not finite.

    vectors: (n, d), may be a memory map. Rows that can be compared have no entry.
    """
    reasons = {}
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        finite_numbers = np.isfinite(block)
        is_finite: Mask = np.logical_and.reduce(finite_numbers, axis=1)
        is_zero = ~np.logical_or.reduce(block != 0, axis=1)
        for row in np.flatnonzero(~is_finite | is_zero):
            flaw = "only zeros" if is_finite[row] else "numbers that are not finite"
            reasons[start + int(row)] = f"embedding: its vector has {flaw}"
    return reasons


def _without_rows(vectors: Floats, rows: Sequence[int]) -> Floats:
    """Return `vectors` without some rows; moves the others up in place, as they may be a map."""
    if not rows:
        return vectors
    kept = np.delete(np.arange(len(vectors)), rows)
    for start in range(0, len(kept), BLOCK_ROWS):
        block = kept[start : start + BLOCK_ROWS]
        vectors[start : start + len(block)] = vectors[block]
    return vectors[: len(kept)]


def with_problems(scores: pa.Table, reasons: Mapping[str, str]) -> pa.Table:
    """Return `scores` with these problems, by id; a row that has one already keeps it."""
    if not reasons:
        return scores
    ids = pa.array(reasons.keys(), pa.string())
    texts = pa.array(reasons.values(), pa.string())
    places = pc.index_in(scores["id"], value_set=ids)
    added = texts.take(places.combine_chunks())
    problems = pc.coalesce(scores["problem"], added)
    column = scores.schema.get_field_index("problem")
    return scores.set_column(column, "problem", problems)


def read_scores(
    pool: Pool, stage_parts: StagesParts, strategy: Selector | None = None
) -> PoolScores:
    """Return the scores of each distinct row of `pool`, in order, as `strategy` ranks by them.

    Raises StorageError for a row that is in no part of a stage.
    """
    ids, _ = pool.distinct
    every_row = np.arange(len(ids))
    tables = {}
    for stage, parts in stage_parts.items():
        values = ComputedValues.read(stage, pool, parts)
        missing = int(np.count_nonzero(~values.is_computed))
        if missing:
            raise StorageError(
                f"{missing} of {len(ids)} rows are in no part; run again: they will be computed"
            )
        tables[stage] = values.take(every_row)
    if strategy is None:
        return assemble_scores(ids, turns_of(pool), tables)
    rule = RankRule.of(strategy, pool)
    return assemble_scores(ids, turns_of(pool), tables, strategy.evol_score, rule)


@contextmanager
def open_vectors(
    pool: Pool, ids: pa.ChunkedArray, stage_parts: StagesParts
) -> Iterator[Floats | None]:
    """Give float32 (n, d), row i of ids[i], NaN where it has no vector; None without embeddings.

    Vectors of more than MEMORY_BYTES lie in a scratch file.
    """
    if "embedding" not in stage_parts:
        yield None
        return
    if not len(ids):
        yield np.zeros((0, 1), np.float32)
        return
    parts = stage_parts["embedding"]
    keys = pool.keys_of(ids, parts.part_set.row_key).to_pylist()
    width = vector_width(parts, keys)
    shape = (len(keys), width)
    size = len(keys) * width * 4
    if size <= MEMORY_BYTES:
        vectors = np.empty(shape, np.float32)
        place_vectors(parts, keys, vectors)
        yield vectors
        return
    with storage.scratch_folder() as folder:
        path = Path(folder) / "vectors.f32"
        _reserve(path, size)
        mapped: Floats = np.memmap(path, np.float32, "r+", shape=shape)
        place_vectors(parts, keys, mapped)
        yield mapped
        del mapped


def _reserve(path: Path, size: int) -> None:
    """Make a file of `size` bytes; a disk that is full later would kill who writes to its map."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS
            file.truncate(size)
