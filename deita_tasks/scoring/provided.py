"""Scores that the user provides; no model runs."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from deita_tasks.components import Fingerprint
from deita_tasks.conversations import Conversation
from deita_tasks.errors import UsageError
from deita_tasks.models.provided import DefaultColumns, NoValue, ProvidedComponent, parse_value
from deita_tasks.models.value_file import Value
from deita_tasks.records import ModelOutput, ScoreKind
from deita_tasks.scoring.base import RowScores, Scorer

LARGEST = float(np.finfo(np.float32).max)
EXPECTED_SCALE = "expected LOW..HIGH, two numbers with LOW below HIGH, such as 0..10"


class Scale(NamedTuple):
    """The range of the user's scores."""

    low: float
    high: float

    def rescale(self, score: float) -> float:
        """Map a score of this range linearly onto [1, 6]: `low` to 1, `high` to 6."""
        return 1 + 5 * ((score - self.low) / (self.high - self.low))


def _parse_scale(value: Any) -> Any:
    """Return LOW and HIGH of the text "LOW..HIGH"; any other value as it is.

    Raises ValueError for another text; pydantic checks what is not text.
    """
    if not isinstance(value, str):
        return value
    try:
        low, high = value.split("..")
        if high.startswith("."):  # "0...5" is a slip
            raise ValueError
        return float(low), float(high)
    except ValueError:
        raise ValueError(EXPECTED_SCALE) from None


def _check_scale(scale: Scale) -> Scale:
    """Return the scale. Raises ValueError unless it has a finite width above 0."""
    if not scale.low < scale.high or not math.isfinite(scale.high - scale.low):
        raise ValueError(EXPECTED_SCALE)
    return scale


class _ColumnScorer(ProvidedComponent, Scorer):
    """Scores from a column, which the row may have for each user turn or once."""

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        """Raise UsageError: a pair does not say which row it is from, and rows may share texts."""
        raise UsageError(
            "the scorer 'provided' has scores of rows, not of pairs: use "
            "compute_rows(conversations)"
        )

    def compute_rows(self, conversations: Sequence[Conversation]) -> RowScores:
        """Return the scores that the rows have, `score_counts` of each.

        A row whose value cannot be used has NaN for every score and one problem. Nothing is
        truncated.
        """
        scores: list[float] = []
        problems: dict[int, str] = {}
        values = self._source().values(conversations)
        counts = self.score_counts(conversations)
        for row, (value, count) in enumerate(zip(values, counts, strict=True)):
            try:
                scores += self._parse_scores(value, count)
            except NoValue as error:
                problems[row] = str(error)
                scores += [math.nan] * count
        truncated_tokens = np.zeros(len(scores), np.int32)
        return RowScores(ModelOutput(np.array(scores, np.float32), truncated_tokens), problems)

    @abstractmethod
    def _parse_scores(self, value: Value | NoValue, count: int) -> list[float]:
        """Return the scores in `value`. Raises NoValue unless there are `count` valid ones."""


class ProvidedScorer(_ColumnScorer):
    """Scores from a column: a list with one number per user turn, as the original program writes.

    For a row with one user turn the number alone will do; in a CSV file the same as JSON text. The
    column is `complexity_scores` or `quality_scores` in the pool's rows by default, and
    `complexity` or `quality` in a `file` that is joined to them (see
    deita_tasks/models/provided.py).

    per: with "row" each row has one number, for the whole conversation however many turns it has.
    The evol score counts it once: complexity * quality if both are per row; else it is the factor
    of each turn's other score.
    scale: the range of the scores, as "0..10"; they are mapped linearly onto [1, 6]. Each score
    must be finite and within it.
    """

    VERSION: ClassVar[int] = 2  # in 1, a user turn without an answer had a score too

    kind: ScoreKind
    per: Literal["turn", "row"] = Field(
        "turn", description="what a score is for: each user turn, or the whole row"
    )
    scale: Annotated[Scale, BeforeValidator(_parse_scale), AfterValidator(_check_scale)] | None = (
        Field(None, description="range of the scores, as 0..10; default: 1..6")
    )

    def fingerprint(self) -> Fingerprint:
        """Return the content that scores are read from, and how they are read.

        `per` and `scale` are part of it only where they are set, so older scores stay valid.
        """
        fingerprint: Fingerprint = {
            "backend": "provided",
            "version": self.VERSION,
            "kind": self.kind,
            **self._source().identity(),
        }
        if self.per != "turn":
            fingerprint["per"] = self.per
        if self.scale is not None:
            fingerprint["scale"] = list(self.scale)
        return fingerprint

    def score_counts(self, conversations: Sequence[Conversation]) -> list[int]:
        """Return 1 for each conversation if scores are per row, else its number of pairs."""
        if self.per == "row":
            return [1] * len(conversations)
        return super().score_counts(conversations)

    def _parse_scores(self, value: Value | NoValue, count: int) -> list[float]:
        """Return `count` scores in [1, 6]. Raises NoValue for another number of them, or a bad one.

        A list for a score per row may have one number, but not several.
        """
        scores = _list_of(value)
        if self.per == "row" and len(scores) != 1:
            raise NoValue(f"{len(scores)} scores, expected one for the row")
        if len(scores) == 1 != count:
            raise NoValue(
                f"1 score for {count} user turns, expected one for each; if it is for the whole "
                f"row, set {self.kind}_per to row"
            )
        if len(scores) != count:
            raise NoValue(f"{len(scores)} scores for {count} user turns, expected one for each")
        return [self._parse_score(score) for score in scores]

    def _parse_score(self, score: Value) -> float:
        """Return a score, mapped from `scale` onto [1, 6]. Raises NoValue if it lies outside."""
        number = _number_of(score)
        if self.scale is not None:
            if not self.scale.low <= number <= self.scale.high:
                low, high = self.scale
                raise NoValue(f"{score} is not in [{low:g}, {high:g}], the scale of its scores")
            return self.scale.rescale(float(number))
        if not 1 <= number <= 6:
            raise NoValue(f"{score} is not in [1, 6]; for another range set {self.kind}_scale")
        return float(number)

    def _default_columns(self) -> DefaultColumns:
        """Return the names that the original program writes, and short ones for a joined file."""
        return DefaultColumns(in_rows=f"{self.kind}_scores", in_file=self.kind)


class ProvidedColumn(_ColumnScorer):
    """Numbers of the user's own in the column `column`, in any range: the score `provided:NAME`.

    A number is for the whole row. A list has a number for each user turn.
    """

    VERSION: ClassVar[int] = 1

    column: str = Field(min_length=1, description="the column")

    def fingerprint(self) -> Fingerprint:
        """Return the content that the numbers are read from, and the score's name."""
        return {
            "backend": "provided_column",
            "version": self.VERSION,
            "kind": self.kind,
            **self._source().identity(),
        }

    def score_counts(self, conversations: Sequence[Conversation]) -> list[int]:
        """Return how many numbers each row has: one per pair for a list, else one for all of it."""
        values = self._source().values(conversations)
        return [
            len(conversation.pairs) if _is_list(value) else 1
            for conversation, value in zip(conversations, values, strict=True)
        ]

    def _parse_scores(self, value: Value | NoValue, count: int) -> list[float]:
        """Return `count` numbers of any range.

        Raises NoValue for another number of them, or a bad one.
        """
        scores = _list_of(value)
        if len(scores) != count:
            raise NoValue(
                f"{len(scores)} numbers for {count} user turns; expected one for each, or a number "
                "for the whole row"
            )
        return [self._parse_score(score) for score in scores]

    def _parse_score(self, score: Value) -> float:
        """Return a number as it is. Raises NoValue if it is not finite in float32."""
        number = _number_of(score)
        if not abs(number) <= LARGEST:
            raise NoValue(f"{str(score)[:40]} is not a finite number")
        return float(number)

    def _default_columns(self) -> DefaultColumns:
        """Return the named column, for rows and files alike; this score has no usual one."""
        return DefaultColumns(self.column, self.column)


def _list_of(value: Value | NoValue) -> list[Any]:
    """Return the scores in `value`, whatever they are; a number alone is a list of one.

    Raises NoValue if there are none.
    """
    parsed = parse_value(value, "a number or a list of numbers")
    if isinstance(parsed, np.ndarray):
        return list(parsed.tolist())
    return parsed if isinstance(parsed, list) else [parsed]


def _number_of(score: Value) -> int | float:
    """Return `score`. Raises NoValue if it is not a number."""
    is_bool = isinstance(score, bool)  # a subclass of int
    if is_bool or not isinstance(score, int | float):
        raise NoValue(f"{str(score)[:40]!r} is not a number")
    return score


def _is_list(value: Value | NoValue) -> bool:
    """Return whether a row has a list of numbers, as JSON text too; False if it has no value."""
    try:
        return isinstance(parse_value(value, "a list"), list | np.ndarray)
    except NoValue:
        return False
