"""Relevance: the rows most similar to those of a target, by turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import ClassVar

import numpy as np

from deita_tasks.records import SelectorResult
from deita_tasks.selecting.arrays import Array, Floats, Indices, Mask
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.greedy import keep_picks, read_candidates
from deita_tasks.selecting.reference import ReferenceKind
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.similarity.exact import exact_similarities
from deita_tasks.selecting.strata import Strata


class Relevance(Selector):
    """Each target row in turn takes the row most similar to it that is not taken.

    The round robin of RDS+ (Ivison et al. 2025, arXiv 2503.01807), on the vectors of the pool's
    embedder. The groups of the reference take turns in the order of their names, and the target
    rows of each group in the order of their ids. Equal similarities go by (-evol_score, id); scores
    count for nothing else. A row that no target took is below_budget, and a candidate whose vector
    has NaN, infinity or only zeros is unscorable.
    """

    reference_kind: ClassVar[ReferenceKind | None] = "target"

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
        groups = self._read_groups(reader.dimensions)
        most = None if self.has_strata else self.budget
        keep_picks(pool, ranks, _RoundRobin(rows, groups, most), self.budget)
        return pool.result()

    def _read_groups(self, dimensions: int) -> list[Floats]:
        """Return the normalised vectors of the targets of each group, in the order of turns."""
        reference = self.reference
        count = len(reference.names)
        groups = reference.groups or [""] * count
        turns = sorted(zip(groups, reference.names, range(count), strict=True))
        reader = EmbeddingReader(np.asarray(reference.vectors), count)
        self.check_width(reader.dimensions, dimensions)
        vectors = []
        for _, of_group in groupby(turns, key=itemgetter(0)):
            positions = [position for _, _, position in of_group]
            targets, comparable = reader.read(np.array(positions, np.int64))
            vectors.append(targets[comparable])
        return vectors


class _RoundRobin:
    """Gives the targets of each group in turn the most similar row that is left.

    rows: normalised, (n, d). groups: of each the normalised targets, (m, d). most: rows that each
    target may look at.
    """

    def __init__(self, rows: Floats, groups: Sequence[Floats], most: int | None) -> None:
        self._is_open = np.ones(len(rows), bool)
        self._groups = deque(_Group(rows, targets, most) for targets in groups)

    def find_next(self) -> int | None:
        """Return the row of the group whose turn it is; None if no target has any left."""
        for _ in range(len(self._groups)):
            row = self._groups[0].find_next(self._is_open)
            if row is not None:
                return row
            self._groups.rotate(-1)
        return None

    def pick(self, row: int) -> None:
        """Pick the row that was found."""
        self._is_open[row] = False
        self._groups[0].end_turn()
        self._groups.rotate(-1)

    def exclude(self, rows: Indices | Mask) -> None:
        """Never pick these rows (indices or a mask)."""
        self._is_open[rows] = False


class _Group:
    """Targets that take turns."""

    def __init__(self, rows: Floats, targets: Floats, most: int | None) -> None:
        self._orders = deque(iter(_by_similarity(rows, target, most)) for target in targets)

    def find_next(self, is_open: Mask) -> int | None:
        """Return the row of the target whose turn it is; None if no target has any left."""
        for _ in range(len(self._orders)):
            row = next((row for row in self._orders[0] if is_open[row]), None)
            if row is not None:
                return int(row)
            self.end_turn()
        return None

    def end_turn(self) -> None:
        """Let the next target take its turn."""
        self._orders.rotate(-1)


def _by_similarity(rows: Floats, target: Floats, most: int | None) -> Indices:
    """Return the rows by falling similarity to a target; equals in their order."""
    pairs = np.arange(len(rows)), np.zeros(len(rows), np.int64)
    similarities = exact_similarities(rows, target[None, :], pairs)
    return np.argsort(-similarities, kind="stable")[:most]
