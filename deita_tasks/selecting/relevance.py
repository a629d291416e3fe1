"""Relevance: the rows most similar to those of a target, by turns."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar

import numpy as np

from deita_tasks.records import SelectorResult
from deita_tasks.selecting.arrays import Array, Floats, Indices, Mask
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.greedy import keep_picks, read_candidates
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.similarity.exact import exact_similarities
from deita_tasks.selecting.strata import Strata


class Relevance(Selector):
    """Each target row in turn takes the row most similar to it that is not taken.

    The round robin of RDS+ (Ivison et al. 2025, arXiv 2503.01807), on the vectors of the pool's
    embedder. The reference has the target rows, which take turns in the order of their ids. Equal
    similarities go by (-evol_score, id); scores count for nothing else. A row that no target took
    is below_budget, and a candidate whose vector has NaN, infinity or only zeros is unscorable.
    """

    needs_reference: ClassVar[bool] = True

    def select(
        self,
        ids: Sequence[str],
        evol_scores: Array,
        embeddings: Array | None,
        strata: Sequence[Hashable] | Strata | None = None,
    ) -> SelectorResult:
        """See Selector.select."""
        pool = self.rank_pool(ids, evol_scores, strata)
        reader = EmbeddingReader(embeddings, len(ids))
        ranks, rows = read_candidates(pool, reader, None)
        targets = self._read_targets(reader.dimensions)
        most = None if self.has_strata else self.budget
        keep_picks(pool, ranks, _RoundRobin(rows, targets, most), self.budget)
        return pool.result()

    def _read_targets(self, dimensions: int) -> Floats:
        """Return the normalised vectors of the targets in the order of their ids."""
        names, vectors = self.reference.names, np.asarray(self.reference.vectors)
        by_id = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
        reader = EmbeddingReader(vectors, len(names))
        self.check_width(reader.dimensions, dimensions)
        targets, comparable = reader.read(by_id)
        return targets[comparable]


class _RoundRobin:
    """Gives each target in turn the most similar row that is left.

    rows: normalised, (n, d). targets: normalised, (m, d). most: rows that each target may look at.
    """

    def __init__(self, rows: Floats, targets: Floats, most: int | None) -> None:
        self._is_open = np.ones(len(rows), bool)
        self._orders = [_by_similarity(rows, target, most) for target in targets]
        self._next = [0] * len(targets)
        self._turn = 0

    def pick_next(self) -> int | None:
        """Pick the row of the target whose turn it is; None if no target has any left."""
        for _ in range(len(self._orders)):
            target = self._turn
            self._turn = (self._turn + 1) % len(self._orders)
            order = self._orders[target]
            while self._next[target] < len(order):
                row = int(order[self._next[target]])
                if self._is_open[row]:
                    self._is_open[row] = False
                    return row
                self._next[target] += 1
        return None

    def exclude(self, rows: Indices | Mask) -> None:
        """Never pick these rows (indices or a mask)."""
        self._is_open[rows] = False


def _by_similarity(rows: Floats, target: Floats, most: int | None) -> Indices:
    """Return the rows by falling similarity to a target; equals in their order."""
    pairs = np.arange(len(rows)), np.zeros(len(rows), np.int64)
    similarities = exact_similarities(rows, target[None, :], pairs)
    return np.argsort(-similarities, kind="stable")[:most]
