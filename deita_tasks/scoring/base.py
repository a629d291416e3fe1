"""What every scorer is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deita_tasks.components import Component, Fingerprint
from deita_tasks.errors import ComputeError
from deita_tasks.records import Conversation, Forecast, ModelOutput, ScoreKind


class RowScores(NamedTuple):
    """`pairs`: the scores of all pairs of n conversations, one conversation after the other.
    `problems`: position of a conversation -> why it as a whole has none, beside those of its pairs.
    """

    pairs: ModelOutput
    problems: Mapping[int, str]


class Scorer(Component):
    """Gives each pair a score in [1, 6]. Its fields are its options."""

    PROBED: ClassVar[bool] = True  # whether a preflight has it score a few rows

    kind: ScoreKind

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Everything that can change a score, as JSON values: backend, model and revision or
        weights digest, template, token ids, max length, dtype, VERSION. Never batch size, device or
        worker count, which may not change one. Loads no weights.
        """

    @abstractmethod
    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        """Scores of `pairs`, float32 (n,), with what was cut and which pairs have none and why.
        Never raises for one bad pair.
        """

    def compute_rows(self, conversations: Sequence[Conversation]) -> RowScores:
        """Scores of every pair of `conversations`; what a run asks for."""
        return RowScores(self.compute([pair for one in conversations for pair in one.pairs]), {})

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """What can be said of `conversations` without the model's weights."""
        return Forecast()

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Scores of (instruction, response) `pairs`: float32 (n,) in [1, 6]. Raises ComputeError
        where a pair has none.
        """
        measured = self.compute(pairs)
        for position, why in measured.problems.items():
            raise ComputeError(f"pair {position} has no {self.kind} score: {why}")
        return measured.values

    def release(self) -> None:
        """Gives back the memory of what was loaded, if anything; the next `measure` loads it again."""
