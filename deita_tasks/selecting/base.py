"""What every selection strategy is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray
from pydantic import Field

from deita_tasks.components import Component
from deita_tasks.records import Selection


class Selector(Component):
    """Chooses at most `budget` rows. Its fields are its options."""

    needs_embeddings: ClassVar[bool] = True

    budget: int = Field(ge=1)

    @abstractmethod
    def select(self, ids: Sequence[str], evol_scores: NDArray[Any], embeddings: NDArray[Any] | None) -> Selection:
        """`ids`: n distinct ids, in any order. `evol_scores`: (n,), NaN for none. `embeddings`: (n, d) of float32 or float16, row i is
        ids[i], not normalised, may be a memory map; None where `needs_embeddings` is False."""

    def fingerprint(self) -> dict[str, Any]:
        """The strategy and every option that changes what is kept."""
        return {"strategy": type(self).__name__, **self.model_dump()}
