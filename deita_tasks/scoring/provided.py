"""Scores that the user provides; no model runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from deita_tasks.components import Fingerprint
from deita_tasks.errors import UsageError
from deita_tasks.models.provided import (
    DefaultColumns,
    NoValue,
    ProvidedComponent,
    Value,
    parse_value,
)
from deita_tasks.records import Conversation, ModelOutput
from deita_tasks.scoring.base import RowScores, Scorer


class ProvidedScorer(ProvidedComponent, Scorer):
    """Scores from a column: a list with one number per user turn, as the original program writes.

    For a row with one user turn the number alone will do; in a CSV file the same as JSON text. Each
    score must be finite and in [1, 6]. The column is `complexity_scores` or `quality_scores` in the
    pool's rows by default, and `complexity` or `quality` in a `file` that is joined to them (see
    deita_tasks/models/provided.py).
    """

    VERSION: ClassVar[int] = 1

    def fingerprint(self) -> Fingerprint:
        return {
            "backend": "provided",
            "version": self.VERSION,
            "kind": self.kind,
            **self._source().identity(),
        }

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        raise UsageError(
            "the scorer 'provided' has scores of rows, not of pairs: use "
            "compute_rows(conversations)"
        )

    def compute_rows(self, conversations: Sequence[Conversation]) -> RowScores:
        scores: list[float] = []
        problems: dict[int, str] = {}
        values = self._source().values(conversations)
        for row, (conversation, value) in enumerate(zip(conversations, values, strict=True)):
            turns = len(conversation.pairs)
            try:
                scores += parse_scores(value, turns)
            except NoValue as error:
                problems[row] = str(error)
                scores += [math.nan] * turns
        truncated_tokens = np.zeros(len(scores), np.int32)
        return RowScores(ModelOutput(np.array(scores, np.float32), truncated_tokens), problems)

    def _default_columns(self) -> DefaultColumns:
        return DefaultColumns(in_rows=f"{self.kind}_scores", in_file=self.kind)


def parse_scores(value: Value | NoValue, turns: int) -> list[float]:
    """Return the scores in `value`, one per user turn. Raises NoValue if there are none."""
    parsed = parse_value(value, "a number or a list of numbers")
    if isinstance(parsed, np.ndarray):
        parsed = parsed.tolist()
    scores = parsed if isinstance(parsed, list) else [parsed]
    if len(scores) != turns:
        raise NoValue(f"{len(scores)} scores for {turns} user turns, expected one for each")
    return [_parse_score(score) for score in scores]


def _parse_score(score: Value) -> float:
    is_bool = isinstance(score, bool)  # a subclass of int
    if is_bool or not isinstance(score, int | float):
        raise NoValue(f"{str(score)[:40]!r} is not a number")
    if not 1 <= score <= 6:
        raise NoValue(f"{score} is not in [1, 6]")
    return float(score)
