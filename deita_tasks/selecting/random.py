"""Random rows: the control for every other strategy."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import numpy as np

from deita_tasks.selecting.arrays import Indices
from deita_tasks.selecting.ranked_pool import RankedPool
from deita_tasks.selecting.top_score import TopScore


class Random(TopScore):
    """The first `budget` rows by a hash of `seed` and id.

    The draw is the same for any order of the input, smaller budgets are prefixes of larger ones,
    and a new row in the pool does not move the others. Rows without a finite evol score are
    unscorable here too: a control draws from the rows that the other strategies can choose.
    """

    stops_at_budget: ClassVar[bool] = False

    seed: int = 0

    def order_ranks(self, pool: RankedPool) -> Indices:
        """Return all candidates by hash.

        Two ids share a hash once in 2**64; the stable sort then orders them by rank.
        """
        ids = (pool.ids[position] for position in pool.order[: pool.candidate_count])
        hashes = (_hash_id(self.seed, row_id) for row_id in ids)
        keys = np.fromiter(hashes, np.uint64, pool.candidate_count)
        return np.argsort(keys, kind="stable")


def _hash_id(seed: int, row_id: str) -> int:
    """Return the place of an id in the draw: the first 64 bits of a SHA-256, 0 to 2**64 - 1.

    Lone surrogates in an id are hashed too, as JSON may bring them.
    """
    digest = hashlib.sha256(f"{seed}:{row_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")
