"""The records that the stages exchange. Constructors check them, so every instance is valid."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deita_tasks.decisions import RejectionReason

if TYPE_CHECKING:
    import pyarrow as pa

ScoreKind = Literal["complexity", "quality"]
SCORE_KINDS: tuple[ScoreKind, ...] = get_args(ScoreKind)

PROVIDED = "provided:"


def provided_column(column: str) -> str:
    """Return the name of the score in a column of the user's: provided:mark, provided:"a mark"."""
    is_plain = re.fullmatch(r"[\w.]+", column)
    return f"{PROVIDED}{column}" if is_plain else f'{PROVIDED}"{column}"'


def column_of(name: str) -> str | None:
    """Return the column of a score that `provided_column` names; None for another score."""
    if not name.startswith(PROVIDED):
        return None
    return name.removeprefix(PROVIDED).strip('"')


@dataclass(frozen=True)
class ModelOutput:
    """The scores or vectors of n inputs. Nothing is imputed.

    values: float32 (n,) scores, or float32 (n, d) vectors; NaN in the rows of `problems`.
    truncated_tokens: int32 (n,), the tokens that did not fit the model's window; 0 if it read the
    whole text. problems: why an input has no value, by the input's position.
    """

    values: NDArray[np.float32]
    truncated_tokens: NDArray[np.int32]
    problems: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.dtype != np.float32 or self.truncated_tokens.shape != self.values.shape[:1]:
            raise ValueError(
                f"values {self.values.dtype} {self.values.shape} with truncated_tokens "
                f"{self.truncated_tokens.shape}: expected float32 values and one count of "
                "truncated tokens per row"
            )


@dataclass(frozen=True)
class Forecast:
    """What a component knows about n conversations before it loads its model; None if unknown.

    window: the most tokens that the model reads. digit_ids: the token ids of "1" to "6". tokens:
    int64 (n,), the tokens that the model would read of each conversation, over all its prompts.
    truncated_tokens: int64 (n,), the tokens that it would leave out. windows: int64 (n,), in how
    many windows it would read each; None if it reads only one.
    """

    window: int | None = None
    digit_ids: Sequence[int] | None = None
    tokens: NDArray[np.int64] | None = None
    truncated_tokens: NDArray[np.int64] | None = None
    windows: NDArray[np.int64] | None = None


class Rejection(NamedTuple):
    """Why a row was not kept.

    `nearest_id` and `similarity` name the kept row that blocked a "too_similar" row, and their
    similarity; "" and NaN for the other reasons.
    """

    id: str
    reason: RejectionReason
    nearest_id: str = ""
    similarity: float = float("nan")


@runtime_checkable
class RejectionColumns(Protocol):
    """A sequence of Rejections that can also return them as columns."""

    def columns(self) -> Mapping[str, pa.Array]:
        """Return one Arrow array per field of Rejection, by field name."""
        ...


@dataclass(frozen=True)
class SelectorResult:
    """The outcome of a selection strategy.

    kept: ids in the order in which they were selected. rejected: one Rejection for every other id,
    in evol-score order. For large pools `rejected` may be a sequence that builds its items on
    demand, and all of them at once as RejectionColumns.
    """

    kept: Sequence[str]
    rejected: Sequence[Rejection]
