"""The base class of scorers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deita_tasks.components import Component, Fingerprint
from deita_tasks.conversations import Conversation, RowKey
from deita_tasks.errors import ComputeError
from deita_tasks.records import Forecast, ModelOutput


class RowScores(NamedTuple):
    """The scores of n conversations.

    `pairs`: the scores of all their pairs, one conversation after the other; as many of each as
    `Scorer.score_counts` says. `problems`: by position, why a conversation as a whole has no score,
    beside the problems of its pairs.
    """

    pairs: ModelOutput
    problems: Mapping[int, str]


class FinishedRows(NamedTuple):
    """The scores of some of the conversations that a scorer was given.

    `positions`: of these conversations among all. `scores`: theirs, in the order of `positions`;
    its own positions count from 0.
    """

    positions: Sequence[int]
    scores: RowScores


class Scorer(Component):
    """Base class of scorers.

    A scorer is one class in its own file, and one line in deita_tasks/catalogue.py:

        class QuestionMarks(Scorer):
            "A score by the number of question marks."

            most: int = 10

            def fingerprint(self):
                options = {"kind": self.kind, "most": self.most}
                return {"backend": "question_marks", "version": 1, **options}

            def compute(self, pairs):
                counts = np.array([pair[0].count("?") for pair in pairs], np.float32)
                scores = 1 + 5 * np.minimum(counts / self.most, 1)
                return ModelOutput(scores, np.zeros(len(pairs), np.int32))

    The fields of the class are the options of the scorer; pydantic checks them. A score depends on
    its own pair alone: neither on the order of the pairs nor on those beside it. A pair that cannot
    be scored has a problem and a NaN; no score is imputed. tests/scoring/test_contract.py checks
    this for every scorer.
    """

    PROBED: ClassVar[bool] = True  # whether a run tries it on a few rows first
    # "id" for a scorer that reads more than `pairs`: rows with the same text share scores otherwise
    ROW_KEY: ClassVar[RowKey] = "text_id"

    kind: str  # complexity, quality, or the name that `rank_by` has for it

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Return everything that can change a score, as JSON values; loads no weights.

        Backend, model and revision or weights digest, template, token ids, max length, number type,
        VERSION. Never batch size, device or worker count: those must not change a score.
        """

    @abstractmethod
    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        """Return the scores of (instruction, response) pairs: float32 (n,).

        Never raises for one bad pair: its score is NaN, and the output says why.
        """

    def score_counts(self, conversations: Sequence[Conversation]) -> list[int]:
        """Return how many scores each conversation has: one for each pair, unless a single score
        is for all of it.
        """
        return [len(conversation.pairs) for conversation in conversations]

    def compute_rows(self, conversations: Sequence[Conversation]) -> RowScores:
        """Return the scores of every pair of `conversations`, one conversation after the other.

        As many of each as `score_counts` says. Never raises for one bad row.
        """
        pairs = [pair for conversation in conversations for pair in conversation.pairs]
        return RowScores(self.compute(pairs), {})

    def iterate_rows(self, conversations: Sequence[Conversation]) -> Iterator[FinishedRows]:
        """Yield the scores of every pair of `conversations` as they become final.

        The same scores as those of `compute_rows`, in pieces: each conversation is in exactly one,
        with all its pairs, in any order. A caller may store a piece at once: what was yielded
        stays right, whatever happens to the rest. An error ends the iteration after the pieces that
        are finished; conversations that were not yielded have to be computed again. Closing the
        iterator stops the work.

        By default one piece with everything. A scorer whose scores are paid for one by one yields
        each conversation by itself.
        """
        if conversations:
            yield FinishedRows(range(len(conversations)), self.compute_rows(conversations))

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """Return what is known about `conversations` before weights are loaded.

        The fields of Forecast that the scorer cannot know stay None; by default all of them.
        """
        return Forecast()

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Return the scores of (instruction, response) pairs: float32 (n,), in [1, 6] unless the
        score has a range of its own.

        Raises ComputeError if a pair has none.
        """
        output = self.compute(pairs)
        for position, problem in output.problems.items():
            raise ComputeError(f"pair {position} has no {self.kind} score: {problem}")
        return output.values

    def release(self) -> None:
        """Free the memory of what was loaded; the next `compute` loads it again."""
