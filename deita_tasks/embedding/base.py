"""The base class of embedders."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from deita_tasks.components import Component, Fingerprint
from deita_tasks.conversations import Conversation, RowKey
from deita_tasks.errors import ComputeError
from deita_tasks.records import Forecast, ModelOutput


class Embedder(Component):
    """Base class of embedders.

    An embedder is one class in its own file, and one line in deita_tasks/catalogue.py:

        class LetterCounts(Embedder):
            "How often some letters occur."

            letters: str = "etaoin"

            def fingerprint(self):
                return {"backend": "letter_counts", "version": 1, "letters": self.letters}

            def compute(self, conversations):
                vectors = np.zeros((len(conversations), len(self.letters)), np.float32)
                for row, conversation in enumerate(conversations):
                    text = " ".join(turn.content for turn in conversation.turns)
                    vectors[row] = [text.count(letter) for letter in self.letters]
                return ModelOutput(vectors, np.zeros(len(vectors), np.int32))

    The fields of the class are the options of the embedder; pydantic checks them. A vector depends
    on its own conversation alone: neither on the order of the conversations nor on those beside it.
    A conversation without a vector has a problem and a row of NaN; no vector is imputed.
    tests/embedding/test_contract.py checks this for every embedder.
    """

    PROBED: ClassVar[bool] = True  # whether a run tries it on a few rows first
    # "id" for an embedder that reads more than roles and texts: rows with the same share vectors
    # otherwise
    ROW_KEY: ClassVar[RowKey] = "text_id"

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Return everything that can change a vector, as JSON values; loads no weights.

        Backend, model and revision or weights digest, template, max length, number type, VERSION.
        Never batch size, device or worker count: those must not change a vector.
        """

    @abstractmethod
    def compute(self, conversations: Sequence[Conversation]) -> ModelOutput:
        """Return the vectors of `conversations`: float32 (n, d).

        Never raises for one bad row: its vector is NaN, and the output says why.
        """

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """Return what is known about `conversations` before weights are loaded.

        The fields of Forecast that the embedder cannot know stay None; by default all of them.
        """
        return Forecast()

    def embed(self, conversations: Sequence[Conversation]) -> NDArray[np.float32]:
        """Return the vectors of `conversations`: float32 (n, d), as the model gives them.

        They are NOT normalised. Raises ComputeError if a conversation has none.
        """
        output = self.compute(conversations)
        for position, problem in output.problems.items():
            row_id = conversations[position].id
            raise ComputeError(f"conversation {row_id} has no vector: {problem}")
        return output.values

    def release(self) -> None:
        """Free the memory of what was loaded; the next `compute` loads it again."""
