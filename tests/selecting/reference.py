"""The paper's rule, one row and one pair at a time: what every fast selection has to equal."""

import math

import numpy as np

from deita_tasks.records import Rejection


def unit(row):
    wide = [float(x) for x in row]
    norm = math.sqrt(math.fsum(x * x for x in wide))
    return [float(np.float32(x / norm)) for x in wide] if 0 < norm < math.inf else None


def similarity(a, b):
    return np.float32(math.fsum(x * y for x, y in zip(a, b, strict=True)))


def sequential(ids, scores, rows, budget, max_similarity):
    finite = [i for i in range(len(ids)) if math.isfinite(scores[i])]
    units, kept, rejected = {i: unit(rows[i]) for i in finite}, [], []
    for i in sorted(finite, key=lambda i: (-scores[i], ids[i])):
        similar = [similarity(units[i], units[k]) for k in kept] if units[i] and len(kept) < budget else []
        if len(kept) == budget:
            rejected.append(Rejection(ids[i], "below_budget"))
        elif units[i] is None:
            rejected.append(Rejection(ids[i], "unscorable"))
        elif similar and max(similar) > np.float32(max_similarity):
            rejected.append(Rejection(ids[i], "too_similar", ids[kept[similar.index(max(similar))]], float(max(similar))))
        else:
            kept.append(i)
    return [ids[i] for i in kept], rejected + [Rejection(x, "unscorable") for x in sorted(set(ids) - {ids[i] for i in finite})]
