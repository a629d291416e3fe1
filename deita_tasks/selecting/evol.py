"""Scores to rank by: the evol score and the paper's simpler rankings.

The evol score says what the turns of a conversation are worth together (paper, section 2.5, and
the original's combine step). A strategy can rank by complexity, quality or length alone instead, or
by an expression of any scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from deita_tasks.errors import ComputeError, UsageError
from deita_tasks.selecting.arrays import Array, Doubles, Indices, Mask
from deita_tasks.selecting.expression import Expression

TurnAggregation = Literal["sum", "mean", "max"]
TURN_AGGREGATIONS: tuple[TurnAggregation, ...] = get_args(TurnAggregation)

Ranking = Literal["evol", "complexity", "quality", "length"]
RANKINGS: tuple[Ranking, ...] = get_args(Ranking)

RANKING_COLUMNS = {
    "evol": "complexity and quality, a list of scores for each row",
    "complexity": "complexity, a list of scores for each row",
    "quality": "quality, a list of scores for each row",
    "length": "lengths, a number for each row",
}

ListColumn: TypeAlias = pa.Array | pa.ChunkedArray


def evol_score(
    complexity_turns: Sequence[float | None],
    quality_turns: Sequence[float | None],
    aggregation: TurnAggregation = "sum",
) -> float:
    """Return the evol score of one conversation: complexity * quality, aggregated over its turns.

    "sum" is the paper's aggregation and favours long conversations; "mean" and "max" do not. Both
    sequences have one entry per pair (user turn). A single entry is for the whole conversation: it
    multiplies each entry of the other, and two of them are multiplied once. The score is NaN if any
    turn's score is missing (None or NaN) or if there are no turns: nothing is imputed.
    `evol_scores` returns the same float. Raises ComputeError if the lengths differ otherwise.
    """
    complexity = np.asarray(complexity_turns, np.float64)
    quality = np.asarray(quality_turns, np.float64)
    if complexity.size != quality.size and min(complexity.size, quality.size) != 1:
        raise ComputeError(
            f"{complexity.size} complexity scores and {quality.size} quality scores: expected "
            "one of each per turn"
        )
    complexity, quality = np.broadcast_arrays(complexity, quality)
    return float(evol_scores([0, complexity.size], complexity, quality, aggregation)[0])


def evol_scores(
    offsets: ArrayLike,
    complexity: ArrayLike,
    quality: ArrayLike,
    aggregation: TurnAggregation = "sum",
) -> Doubles:
    """Return the evol scores of n conversations, float64 (n,).

    `offsets`: integers (n + 1,). The turns of conversation i are [offsets[i], offsets[i + 1]) of
    `complexity` and `quality`, two flat arrays with NaN for a missing score. Every product and sum
    is a float64 operation, and turns are added first to last, so the result does not depend on how
    many rows are computed together. Raises ComputeError if the shapes do not match.
    """
    starts = np.asarray(offsets, np.int64)
    products = _multiply_scores(starts, np.asarray(complexity), np.asarray(quality))
    return _aggregate_turns(starts, products, aggregation)


def ranking_scores(
    ranking: Ranking,
    aggregation: TurnAggregation,
    complexity: ListColumn | None,
    quality: ListColumn | None,
    lengths: ArrayLike | None = None,
) -> Doubles:
    """Return the scores by which a strategy ranks, float64 (n,), NaN for a row without one.

    `ranking` and `aggregation` are the strategy's options `ranking` and `evol_score`.

    "evol": complexity * quality, aggregated over turns. "complexity" and "quality": that score
    alone; the other column is not read and may be None. "length": `lengths` (n,) unchanged, in any
    unit. Raises UsageError if a required column is missing.
    """
    required = {
        "evol": (complexity, quality),
        "complexity": (complexity,),
        "quality": (quality,),
        "length": (lengths,),
    }.get(ranking)
    if required is None:
        raise UsageError(f"ranking {ranking!r}: expected one of {', '.join(RANKINGS)}")
    if any(column is None for column in required):
        raise UsageError(f"ranking {ranking!r} lacks a column: expected {RANKING_COLUMNS[ranking]}")
    if ranking == "length":
        return np.asarray(lengths, np.float64)
    if ranking == "evol":
        return evol_scores_of_columns(complexity, quality, aggregation)
    column = flatten(complexity if ranking == "complexity" else quality)
    return _aggregate_turns(column.offsets, column.values, aggregation)


def evol_scores_of_columns(
    complexity: ListColumn, quality: ListColumn, aggregation: TurnAggregation = "sum"
) -> Doubles:
    """Return the evol scores of two Arrow list columns (n rows, a float per turn), float64 (n,).

    Null rows and null turns give NaN. A single score of a row is for all its turns (see
    `evol_score`). Raises ComputeError if else a row has more scores of one kind than of the other.
    """
    left = flatten(complexity)
    right = flatten(quality)
    null_rows = _check_same_turns(left, right)
    turns = np.maximum(np.diff(left.offsets), np.diff(right.offsets))
    left = _repeat_single_scores(left, turns)
    right = _repeat_single_scores(right, turns)
    if null_rows.any():
        # A null row may have turns in the other column. Without either, its score is NaN.
        left = _clear_rows(left, null_rows)
        right = _clear_rows(right, null_rows)
    return evol_scores(left.offsets, left.values, right.values, aggregation)


def expression_scores(
    expression: Expression, aggregation: TurnAggregation, columns: Mapping[str, FlatColumn]
) -> Doubles:
    """Return the values of `expression` for n rows, aggregated over their turns, float64 (n,).

    columns: by name, those of the expression. A single value of a row is for all its turns (see
    `evol_score`). NaN or infinite for a row without a value. Raises ComputeError if else a row has
    more values in one column than in another.
    """
    counts = {name: np.diff(column.offsets) for name, column in columns.items()}
    turns = np.maximum.reduce(list(counts.values()))
    null_rows = np.logical_or.reduce([column.null_rows for column in columns.values()])
    values: dict[str, Doubles] = {}
    for name, column in columns.items():
        unequal = np.flatnonzero((counts[name] != turns) & (counts[name] != 1) & ~null_rows)
        if unequal.size:
            row = int(unequal[0])
            raise ComputeError(
                f"row {row}: {counts[name][row]} values of {name} for {turns[row]} turns: expected "
                "one for each turn, or one for all"
            )
        whole = _clear_rows(_repeat_single_scores(column, turns), null_rows)
        values[name] = whole.values
    offsets = np.concatenate(([0], np.cumsum(np.where(null_rows, 0, turns))))
    results = np.broadcast_to(expression.evaluate(values), (int(offsets[-1]),))
    return _aggregate_turns(offsets, results, aggregation)


def _aggregate_turns(offsets: Indices, values: Doubles, aggregation: TurnAggregation) -> Doubles:
    """Return the sum, mean or largest value of the turns of n rows, float64 (n,).

    The turns of row i are values[offsets[i]:offsets[i + 1]]. NaN for a row without turns. Turns
    are added in their order, so a row's score does not depend on the rows beside it. Raises
    UsageError for an unknown aggregation.
    """
    if aggregation not in TURN_AGGREGATIONS:
        raise UsageError(
            f"evol_score {aggregation!r}: expected one of {', '.join(TURN_AGGREGATIONS)}"
        )
    lengths = np.diff(offsets)
    longest_first = np.argsort(-lengths, kind="stable")
    starts, lengths = offsets[:-1][longest_first], lengths[longest_first]
    totals = np.full(lengths.size, np.nan)
    # One turn of all rows at a time. A step costs as much as there are rows with that turn, and
    # the order of additions is fixed.
    for turn in range(lengths.max(initial=0)):
        rows_with_turn = int(np.searchsorted(-lengths, -turn, side="left"))
        running = totals[:rows_with_turn]  # a view
        turn_values = values[starts[:rows_with_turn] + turn]
        if turn == 0:
            running[:] = turn_values
        elif aggregation == "max":
            np.maximum(running, turn_values, out=running)
        else:
            running += turn_values
    if aggregation == "mean":
        totals /= np.maximum(lengths, 1)
    scores = np.empty_like(totals)
    scores[longest_first] = totals
    return scores


def _multiply_scores(offsets: Indices, complexity: Array, quality: Array) -> Doubles:
    """Return complexity * quality of every turn, float64 (t,).

    Raises ComputeError unless both have the shape (t,) and `offsets` (n + 1,) point into them.
    """
    if complexity.ndim != 1 or complexity.shape != quality.shape:
        raise ComputeError(
            f"complexity {complexity.shape} and quality {quality.shape}: expected two flat "
            "arrays of one length"
        )
    if not _are_offsets(offsets, complexity.size):
        raise ComputeError(
            f"offsets {offsets.shape} into {complexity.size} turns: expected n + 1 ascending "
            "positions within them"
        )
    return complexity.astype(np.float64) * quality.astype(np.float64)


def _are_offsets(offsets: Indices, turns: int) -> bool:
    """Return whether `offsets` cut so many turns into rows: flat, never falling, within range."""
    if offsets.ndim != 1 or offsets.size == 0:
        return False
    in_range = offsets[0] >= 0 and offsets[-1] <= turns
    return bool(in_range and (np.diff(offsets) >= 0).all())


class FlatColumn(NamedTuple):
    """An Arrow list column of n rows: offsets (n + 1,), flat values, which rows are null (n,)."""

    offsets: Indices
    values: Doubles
    null_rows: Mask


def flatten(column: ListColumn) -> FlatColumn:
    """Flatten a list column, chunked or sliced or neither."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    values = array.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    null_rows = array.is_null().to_numpy(zero_copy_only=False)
    return FlatColumn(offsets, values, null_rows)


def _check_same_turns(complexity: FlatColumn, quality: FlatColumn) -> Mask:
    """Return which rows are null in either column, (n,).

    Raises ComputeError if the others do not have the same turns in both.
    """
    complexity_turns = np.diff(complexity.offsets)
    quality_turns = np.diff(quality.offsets)
    if complexity_turns.shape != quality_turns.shape:
        raise ComputeError(
            f"{complexity_turns.size} rows of complexity and {quality_turns.size} of quality: "
            "expected the same conversations"
        )
    null_rows = complexity.null_rows | quality.null_rows
    one_for_all = np.minimum(complexity_turns, quality_turns) == 1
    unequal = np.flatnonzero((complexity_turns != quality_turns) & ~one_for_all & ~null_rows)
    if unequal.size:
        row = int(unequal[0])
        raise ComputeError(
            f"row {row}: {complexity_turns[row]} complexity scores and {quality_turns[row]} "
            "quality scores: expected one of each per turn"
        )
    return null_rows


def _repeat_single_scores(column: FlatColumn, turns: Indices) -> FlatColumn:
    """Return `column` with the score of each row that has a single one `turns` (n,) times."""
    lengths = np.diff(column.offsets)
    repeats = np.where(lengths == 1, turns, 1)
    offsets = np.concatenate(([0], np.cumsum(lengths * repeats)))
    values = np.repeat(column.values, np.repeat(repeats, lengths))
    return FlatColumn(offsets, values, column.null_rows)


def _clear_rows(column: FlatColumn, rows: Mask) -> FlatColumn:
    """Return `column` with no turns in the `rows` (n,)."""
    lengths = np.diff(column.offsets)
    offsets = np.concatenate(([0], np.cumsum(np.where(rows, 0, lengths))))
    return FlatColumn(offsets, column.values[np.repeat(~rows, lengths)], rows)
