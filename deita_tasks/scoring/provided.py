"""Scores that the user brings: they are the rows', and no model is asked."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from deita_tasks.components import Fingerprint
from deita_tasks.errors import UsageError
from deita_tasks.models.provided import NoValue, ProvidedComponent
from deita_tasks.records import Conversation, ModelOutput
from deita_tasks.scoring.base import RowScores, Scorer


class ProvidedScorer(ProvidedComponent, Scorer):
    """Scores from a column: a list with one for each user turn (as the original program writes
    them), or one number for a row with one user turn; in a CSV file the same as JSON text. Each has
    to be finite and in [1, 6].

    The column is one of the pool's rows, by default `complexity_scores` or `quality_scores`, or
    with `file` one of a Parquet file joined to them (see `deita_tasks/models/provided.py`), by
    default `complexity` or `quality`.
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
            "the scorer 'provided' knows rows, not pairs: use compute_rows(conversations)"
        )

    def compute_rows(self, conversations: Sequence[Conversation]) -> RowScores:
        scores: list[float] = []
        problems: dict[int, str] = {}
        for row, value in enumerate(self._source().values(conversations)):
            pairs = len(conversations[row].pairs)
            try:
                scores += scores_in(value, pairs)
            except NoValue as error:
                problems[row] = str(error)
                scores += [math.nan] * pairs
        return RowScores(
            ModelOutput(np.array(scores, np.float32), np.zeros(len(scores), np.int32)), problems
        )

    def _usual(self) -> tuple[str, str]:
        return f"{self.kind}_scores", self.kind


def scores_in(value: Any, pairs: int) -> list[float]:
    """The `pairs` scores that `value` holds. Raises NoValue where it does not."""
    if isinstance(value, NoValue):
        raise value
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise NoValue(f"{value[:40]!r} is not a number or a list of numbers") from None
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list):
        value = [value]
    if len(value) != pairs:
        raise NoValue(f"{len(value)} scores for {pairs} user turns, expected one for each")
    for score in value:
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise NoValue(f"{str(score)[:40]!r} is not a number")
        if not 1 <= score <= 6:
            raise NoValue(f"{score} is not in [1, 6]")
    return [float(score) for score in value]
