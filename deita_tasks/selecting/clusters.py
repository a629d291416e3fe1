"""Clusters of rows by k-means on their vectors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from deita_tasks.errors import UsageError
from deita_tasks.selecting.arrays import Array, Indices
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader

SEED = 0
BATCH_ROWS = 4096
ITERATIONS = 100  # at most


def cluster_rows(ids: Sequence[str], embeddings: Array, clusters: int) -> Indices:
    """Return the cluster of each row, int64 (n,), from 0 on; -1 for a row without a usable vector.

    scikit-learn's MiniBatchKMeans on the normalised vectors, from a fixed seed, on one thread, with
    the rows in the order of their ids: so the clusters depend neither on the order of the input nor
    on the number of threads. Processors of another kind may round differently.

    embeddings: (n, d). clusters: k; as many as there are rows at most.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    reader = EmbeddingReader(embeddings, len(ids))
    if len(set(ids)) != len(ids):
        raise UsageError("ids occur more than once: expected distinct ids")
    by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    rows, comparable = reader.read(by_id)
    labels = np.full(len(ids), -1, np.int64)
    count = min(clusters, int(comparable.sum()))
    if count == 0:
        return labels
    k_means = MiniBatchKMeans(
        count, max_iter=ITERATIONS, batch_size=BATCH_ROWS, random_state=SEED, n_init=3
    )
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
        labels[by_id[comparable]] = k_means.fit_predict(rows[comparable])
    return labels
