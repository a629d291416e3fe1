"""The paper's rule, one row and one pair at a time: what every fast selection has to equal."""

import math

import numpy as np

from deita_tasks.records import Rejection


def unit(row):
    """The row divided by its norm; None if it cannot be."""
    norm = math.sqrt(math.fsum(x * x for x in map(float, row)))
    if not 0 < norm < math.inf:
        return None
    return [float(np.float32(float(x) / norm)) for x in row]


def as_floats(row):
    """The row as it is; None if it cannot be compared."""
    return [float(x) for x in row] if unit(row) else None


def similarity(a, b):
    return np.float32(math.fsum(x * y for x, y in zip(a, b, strict=True)))


def negative_euclidean(a, b):
    return -np.float32(math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))))


def negative_manhattan(a, b):
    return -np.float32(math.fsum(abs(x - y) for x, y in zip(a, b, strict=True)))


def sequential(
    ids,
    scores,
    rows,
    budget,
    limit,
    per_stratum=math.inf,
    strata=None,
    prepare=unit,
    closeness=similarity,
):
    """The kept ids and the Rejections of a pool.

    `limit`: of closeness, which is a similarity or a distance with its sign flipped.
    """
    finite = [i for i in range(len(ids)) if math.isfinite(scores[i])]
    prepared = {i: prepare(rows[i]) for i in finite}
    kept, rejected = [], []

    def is_full(i):
        if len(kept) == budget:
            return True
        return strata is not None and [strata[k] for k in kept].count(strata[i]) == per_stratum

    def decide(i):
        if is_full(i):
            rejected.append(Rejection(ids[i], "below_budget"))
            return
        if prepared[i] is None:
            rejected.append(Rejection(ids[i], "unscorable"))
            return
        to_kept = [closeness(prepared[i], prepared[k]) for k in kept]
        largest = max(to_kept, default=-math.inf)
        if not largest > np.float32(limit):
            kept.append(i)
            return
        nearest_id = ids[kept[to_kept.index(largest)]]
        reported = float(largest) if closeness is similarity else abs(float(largest))
        rejected.append(Rejection(ids[i], "too_similar", nearest_id, reported))

    for i in sorted(finite, key=lambda i: (-scores[i], ids[i])):
        decide(i)
    if strata is not None:
        kept_strata = [strata[k] for k in kept]
        full = {
            id
            for id, stratum in zip(ids, strata, strict=True)
            if kept_strata.count(stratum) == per_stratum
        }
        rejected = [
            each._replace(reason="stratum_full")
            if each.reason == "below_budget" and each.id in full
            else each
            for each in rejected
        ]
    without_score = sorted(set(ids) - {ids[i] for i in finite})
    rejected += [Rejection(row_id, "unscorable") for row_id in without_score]
    return [ids[i] for i in kept], rejected
