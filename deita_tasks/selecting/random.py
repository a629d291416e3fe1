"""Rows at random: the control that every other strategy is measured against."""

from __future__ import annotations

import hashlib

import numpy as np

from deita_tasks.selecting.ledger import Ledger
from deita_tasks.selecting.similarity.exact import Indices
from deita_tasks.selecting.top_score import TopScore


class Random(TopScore):
    """The first `budget` rows by a hash of `seed` and id.

    So the draw is the same for any order of the input, budgets nest, and a row that joins the pool
    moves no other row's place. Rows without a finite evol score are unscorable here too: a control
    draws from the rows that the others could choose.
    """

    seed: int = 0

    def in_order(self, ledger: Ledger) -> Indices:
        """By hash. Ranks go by (-evol_score, id): the stable sort settles the one hash in 2**64
        that two ids share.
        """
        ids = (ledger.ids[position] for position in ledger.order[: ledger.candidates])
        places = np.fromiter((_place(self.seed, one) for one in ids), np.uint64, ledger.candidates)
        return np.argsort(places, kind="stable")


def _place(seed: int, identity: str) -> int:
    digest = hashlib.sha256(f"{seed}:{identity}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")
