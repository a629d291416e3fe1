"""What every embedder is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from deita_tasks.components import Component, Fingerprint
from deita_tasks.errors import ComputeError
from deita_tasks.records import Conversation, Forecast, ModelOutput


class Embedder(Component):
    """Gives each conversation one vector. Its fields are its options."""

    PROBED: ClassVar[bool] = True  # whether a preflight loads the model to see a few vectors

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Everything that can change a vector, as JSON values: backend, model and revision or
        weights digest, template, max length, dtype, VERSION. Never batch size, device or worker
        count, which may not change one. Loads no weights.
        """

    @abstractmethod
    def compute(self, conversations: Sequence[Conversation]) -> ModelOutput:
        """Vectors of `conversations`, float32 (n, d), with what was cut and which have none and
        why. Never raises for one bad row.
        """

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """What can be said of `conversations` without the model's weights."""
        return Forecast()

    def embed(self, conversations: Sequence[Conversation]) -> NDArray[np.float32]:
        """Vectors of `conversations`: float32 (n, d), as the model gives them, NOT normalised.
        Raises ComputeError where one has none.
        """
        measured = self.compute(conversations)
        for position, why in measured.problems.items():
            raise ComputeError(f"conversation {conversations[position].id} has no vector: {why}")
        return measured.values

    def release(self) -> None:
        """Gives back the memory of what was loaded, if anything; the next `measure` loads it again."""
