"""SemDeDup: the best rows, without the near-duplicates of each cluster."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from pydantic import Field

from deita_tasks.presets import SEMDEDUP_EPSILON
from deita_tasks.records import SelectorResult
from deita_tasks.selecting.arrays import Array, Indices
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.clusters import cluster_rows
from deita_tasks.selecting.similarity.cosine import CosineKeptRows
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader
from deita_tasks.selecting.similarity.products import BlockProduct
from deita_tasks.selecting.strata import Strata


class SemDedup(Selector):
    """The best rows by score; of two rows of a cluster more similar than 1 - `eps`, the better one.

    Abbas et al. 2023 (arXiv 2303.09540). The clusters are those of clusters.py, `groups` of them;
    by default the square root of the number of rows. Rows of different clusters are not compared,
    so a near-duplicate across a border stays, and the work is 1/k of that of `diverse`.

    Of a pair, the paper keeps the row farther from the centroid. Here the better score stays, as in
    `diverse`. A row is compared with the selected ones of its cluster, so each rejected row names
    one; the published code also drops a row that is similar to nothing but a dropped one.
    """

    eps: float = Field(default=SEMDEDUP_EPSILON, ge=0, le=2)
    groups: int | None = Field(default=None, ge=1)

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
        groups = self.groups or max(1, math.isqrt(len(ids)))
        clusters = cluster_rows(ids, np.asanyarray(embeddings), groups)
        kept = _KeptByCluster(reader, clusters, 1 - self.eps)
        for rank in range(pool.candidate_count):
            if kept.count == self.budget:
                break
            ranks = np.array([rank])
            position = int(pool.order[rank])
            cluster = int(clusters[position])
            if not pool.has_room(ranks).all():
                continue
            if cluster < 0:
                pool.reject_unscorable(ranks)
                continue
            blocker, similarity = kept.find_blocker(position, cluster)
            if blocker is None:
                if pool.count_fitting(ranks):
                    kept.keep(rank, position, cluster)
                    pool.keep(ranks)
            else:
                similarities = np.array([similarity], np.float32)
                pool.reject_too_similar(ranks, np.array([blocker]), similarities)
        return pool.result()


class _KeptByCluster:
    """The rows that are kept of each cluster."""

    def __init__(self, reader: EmbeddingReader, clusters: Indices, limit: float) -> None:
        self.count = 0
        self._reader = reader
        self._sizes = np.bincount(clusters[clusters >= 0])
        self._limit = limit
        self._kept: dict[int, CosineKeptRows] = {}
        self._ranks: dict[int, list[int]] = {}

    def find_blocker(self, position: int, cluster: int) -> tuple[int | None, float]:
        """Return the rank of the kept row that is too similar, and how much; None for none."""
        if cluster not in self._kept:
            size = int(self._sizes[cluster])
            self._kept[cluster] = CosineKeptRows(self._reader, size, self._limit, BlockProduct)
            self._ranks[cluster] = []
        kept_rows, ranks = self._kept[cluster], self._ranks[cluster]
        row, _ = kept_rows.read(np.array([position]))
        decision = kept_rows.decide(row)
        if not len(decision.kept):
            similarity = decision.closeness[0] + np.float32(0)  # no negative zero
            return ranks[int(decision.nearest[0])], float(similarity)
        return None, math.nan

    def keep(self, rank: int, position: int, cluster: int) -> None:
        """Keep a row that nothing blocks."""
        row, _ = self._kept[cluster].read(np.array([position]))
        self._kept[cluster].append(row)
        self._ranks[cluster].append(rank)
        self.count += 1
