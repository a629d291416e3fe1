"""Rows at random: the control that every other strategy is measured against."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from deita_tasks.records import Selection
from deita_tasks.selecting.base import Selector


class Random(Selector):
    """The first `budget` rows by a hash of `seed` and id.

    So the draw is the same for any order of the input, budgets nest, and a row that joins the pool moves no other row's place.
    Rows without a finite evol score are unscorable here too: a control draws from the rows that the others could choose.
    """

    needs_embeddings: ClassVar[bool] = False

    seed: int = 0

    def select(
        self,
        ids: Sequence[str],
        evol_scores: NDArray[Any],
        embeddings: NDArray[Any] | None = None,
        strata: Sequence[Hashable] | None = None,
    ) -> Selection:
        """See Selector.select. `embeddings` are not read."""
        ledger = self.ledger(ids, evol_scores, strata)
        candidates = ledger.order[: ledger.candidates]
        places = np.fromiter((_place(self.seed, ids[position]) for position in candidates), np.uint64, candidates.size)
        # Candidates come in (-evol_score, id) order: the stable sort settles the one hash in 2**64 that two ids share.
        ranks = np.argsort(places, kind="stable")
        ledger.keep(ranks[ledger.room_after(ranks) >= 0][: self.budget])
        return ledger.selection()


def _place(seed: int, identity: str) -> int:
    digest = hashlib.sha256(f"{seed}:{identity}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")
