"""The evol score: what a conversation's turns are worth together (paper section 2.5 and the
original's combine step).

And the paper's simpler rankings, which a strategy takes in its place: by complexity alone, by
quality alone, by length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from deita_tasks.errors import ComputeError, UsageError

How = Literal["sum", "mean", "max"]
HOWS: tuple[How, ...] = get_args(How)

Ranking = Literal["evol", "complexity", "quality", "length"]
RANKINGS: tuple[Ranking, ...] = get_args(Ranking)

RANKED_BY = {
    "evol": "complexity and quality, a list of scores for each row",
    "complexity": "complexity, a list of scores for each row",
    "quality": "quality, a list of scores for each row",
    "length": "lengths, a number for each row",
}

Lists: TypeAlias = pa.Array | pa.ChunkedArray


def evol_score(
    complexity_turns: Sequence[float | None],
    quality_turns: Sequence[float | None],
    how: How = "sum",
) -> float:
    """The evol score of one conversation from its turns' scores: `how` over turns of complexity *
    quality.

    "sum" is the paper's, and favours long conversations; "mean" and "max" do not. Both sequences
    have one entry per pair (user turn). NaN where any turn's score is missing (None or NaN) or
    there is no turn: nothing is imputed. The same float as `evol_scores` gives. Raises ComputeError
    where the lengths differ.
    """
    complexity, quality = (
        np.asarray(complexity_turns, np.float64),
        np.asarray(quality_turns, np.float64),
    )
    if complexity.shape != quality.shape:
        raise ComputeError(
            f"{complexity.size} complexity scores and {quality.size} quality scores: expected "
            "one of each per turn"
        )
    return float(evol_scores([0, complexity.size], complexity, quality, how)[0])


def evol_scores(
    offsets: ArrayLike, complexity: ArrayLike, quality: ArrayLike, how: How = "sum"
) -> NDArray[np.float64]:
    """Evol scores of n conversations at once, float64 (n,).

    `offsets`: integers (n + 1,); the turns of conversation i are [offsets[i], offsets[i + 1]) of
    `complexity` and `quality`, two flat arrays with NaN for a missing score. Each product and each
    sum is a float64 operation, and turns are added first to last, so that the result does not
    depend on how many rows are computed together. Raises ComputeError where the shapes do not fit
    together.
    """
    starts = np.asarray(offsets, np.int64)
    return _over_turns(starts, _products(starts, np.asarray(complexity), np.asarray(quality)), how)


def ranking_scores(
    ranking: Ranking,
    how: How,
    complexity: Lists | None,
    quality: Lists | None,
    lengths: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """What a strategy is to take as `evol_scores` for its options `ranking` and `evol_score`
    (`how`): float64 (n,), NaN for none.

    "evol": complexity * quality over turns. "complexity", "quality": that score alone over turns;
    the other column is not read and may be None. "length": `lengths` (n,) as they are, in whatever
    unit, with neither column. Raises UsageError where a column that is needed is missing.
    """
    needed = {
        "evol": (complexity, quality),
        "complexity": (complexity,),
        "quality": (quality,),
        "length": (lengths,),
    }.get(ranking)
    if needed is None:
        raise UsageError(f"ranking {ranking!r}: expected one of {', '.join(RANKINGS)}")
    if any(column is None for column in needed):
        raise UsageError(
            f"ranking {ranking!r} needs a column that was not given: expected {RANKED_BY[ranking]}"
        )
    if ranking == "length":
        return np.asarray(lengths, np.float64)
    if ranking == "evol":
        return evol_scores_of(complexity, quality, how)
    offsets, values, _ = _ragged(complexity if ranking == "complexity" else quality)
    return _over_turns(offsets, values, how)


def _over_turns(
    offsets: NDArray[np.int64], values: NDArray[np.float64], how: How
) -> NDArray[np.float64]:
    if how not in HOWS:
        raise UsageError(f"evol_score {how!r}: expected one of {', '.join(HOWS)}")
    lengths = np.diff(offsets)
    longest_first = np.argsort(-lengths, kind="stable")
    starts, lengths = offsets[:-1][longest_first], lengths[longest_first]
    totals = np.full(lengths.size, np.nan)
    # Column by column over the rows that have one: a step costs the turns left in it, and the order
    # of additions is fixed.
    for turn in range(lengths.max(initial=0)):
        rows = int(
            np.searchsorted(-lengths, -turn, side="left")
        )  # so many rows have more than `turn` turns
        column = values[starts[:rows] + turn]
        if turn == 0:
            totals[:rows] = column
        elif how == "max":
            np.maximum(totals[:rows], column, out=totals[:rows])
        else:
            totals[:rows] += column
    if how == "mean":
        totals /= np.maximum(lengths, 1)
    scores = np.empty_like(totals)
    scores[longest_first] = totals
    return scores


def _products(
    offsets: NDArray[np.int64], complexity: NDArray[Any], quality: NDArray[Any]
) -> NDArray[np.float64]:
    if complexity.ndim != 1 or complexity.shape != quality.shape:
        raise ComputeError(
            f"complexity {complexity.shape} and quality {quality.shape}: expected two flat "
            "arrays of one length"
        )
    if (
        offsets.ndim != 1
        or offsets.size == 0
        or offsets[0] < 0
        or offsets[-1] > complexity.size
        or (np.diff(offsets) < 0).any()
    ):
        raise ComputeError(
            f"offsets {offsets.shape} into {complexity.size} turns: expected n + 1 ascending "
            "positions within them"
        )
    return complexity.astype(np.float64) * quality.astype(np.float64)


def evol_scores_of(complexity: Lists, quality: Lists, how: How = "sum") -> NDArray[np.float64]:
    """Evol scores of two Arrow list columns (n rows, one float per turn), float64 (n,); null rows
    and null turns give NaN.

    Raises ComputeError where a row has another number of complexity than of quality scores.
    """
    left, right = _ragged(complexity), _ragged(quality)
    lengths, others = np.diff(left[0]), np.diff(right[0])
    if lengths.shape != others.shape:
        raise ComputeError(
            f"{lengths.size} rows of complexity and {others.size} of quality: expected the "
            "same conversations"
        )
    null = left[2] | right[2]
    unequal = np.flatnonzero((lengths != others) & ~null)
    if unequal.size:
        row = int(unequal[0])
        raise ComputeError(
            f"row {row}: {lengths[row]} complexity scores and {others[row]} quality scores: "
            "expected one of each per turn"
        )
    if (
        null.any()
    ):  # a null row may still have turns on the other side; with neither side's, its score is NaN
        left, right = _without(left, null), _without(right, null)
    return evol_scores(left[0], left[1], right[1], how)


Ragged = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]


def _ragged(column: Lists) -> Ragged:
    """Offsets, flat values and null rows of an Arrow list column, chunked or sliced or not."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    values = array.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    return offsets, values, array.is_null().to_numpy(zero_copy_only=False)


def _without(ragged: Ragged, empty: NDArray[np.bool_]) -> Ragged:
    offsets, values, _ = ragged
    lengths = np.diff(offsets)
    kept_lengths = np.where(empty, 0, lengths)
    return np.concatenate(([0], np.cumsum(kept_lengths))), values[np.repeat(~empty, lengths)], empty
