"""The best rows by evol score alone: the paper's ranking without its Repr Filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from deita_tasks.records import Selection
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.ledger import Ledger


class TopScore(Selector):
    """The first `budget` rows by (-evol_score, id)."""

    needs_embeddings: ClassVar[bool] = False

    def select(self, ids: Sequence[str], evol_scores: NDArray[Any], embeddings: NDArray[Any] | None = None) -> Selection:
        """See Selector.select. `embeddings` are not read."""
        ledger = Ledger(ids, evol_scores)
        ledger.keep(np.arange(min(self.budget, ledger.candidates)))
        return ledger.selection()
