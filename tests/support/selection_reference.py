"""The paper's rule, one row and one pair at a time: what every fast selection has to equal."""

import math

import numpy as np

from deita_tasks.records import Rejection


def unit(row):
    norm = math.sqrt(math.fsum(x * x for x in map(float, row)))
    return [float(np.float32(float(x) / norm)) for x in row] if 0 < norm < math.inf else None


def plain(row):
    return [float(x) for x in row] if unit(row) else None


def similarity(a, b):
    return np.float32(math.fsum(x * y for x, y in zip(a, b, strict=True)))


def nearness(a, b):
    return -np.float32(math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))))


def blockwise_nearness(a, b):
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
    """`limit`: of closeness, which is a similarity or a distance with its sign turned."""
    finite = [i for i in range(len(ids)) if math.isfinite(scores[i])]
    ready, kept, rejected = {i: prepare(rows[i]) for i in finite}, [], []
    for i in sorted(finite, key=lambda i: (-scores[i], ids[i])):
        full = len(kept) == budget or (
            strata is not None and [strata[k] for k in kept].count(strata[i]) == per_stratum
        )
        close = [closeness(ready[i], ready[k]) for k in kept] if ready[i] and not full else []
        if full:
            rejected.append(Rejection(ids[i], "below_budget"))
        elif ready[i] is None:
            rejected.append(Rejection(ids[i], "unscorable"))
        elif close and max(close) > np.float32(limit):
            reported = abs(float(max(close))) if closeness is not similarity else float(max(close))
            rejected.append(
                Rejection(ids[i], "too_similar", ids[kept[close.index(max(close))]], reported)
            )
        else:
            kept.append(i)
    return [ids[i] for i in kept], rejected + [
        Rejection(x, "unscorable") for x in sorted(set(ids) - {ids[i] for i in finite})
    ]
