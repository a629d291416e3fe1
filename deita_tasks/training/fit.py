"""The fits: kernel ridge regression, ridge regression with weights that may not be negative, and
Bradley-Terry on comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Matrix = NDArray[np.float64]  # (n, k), or (n,) for a vector


def normal_ranks(labels: Matrix) -> Matrix:
    """Labels as the normal distribution's values at their ranks: scales differ between sources,
    ranks do not.
    """
    ranks = pd.Series(labels).rank().to_numpy()
    return np.array([NormalDist().inv_cdf(float(rank - 0.5) / len(labels)) for rank in ranks])


def spearman(one: Matrix, other: Matrix) -> float:
    """Rank correlation, ties at their mean rank; NaN where one of them is constant."""
    return float(pd.Series(one).rank().corr(pd.Series(other).rank()))


def centred(x: Matrix, groups: NDArray[np.int64]) -> Matrix:
    """x less the mean of its group: what is left is what differs within a group."""
    frame = pd.DataFrame(x)
    return (frame - frame.groupby(groups).transform("mean")).to_numpy().reshape(x.shape)


def kernel_ridge(near: Matrix, y: Matrix, penalty: float) -> Matrix:
    """Weights w (n,) on the closeness to each of n examples, where |near w - y|^2 + penalty * w'
    near w is least; y is centred first. `near`: (n, n), how close they are to each other.
    """
    return np.linalg.solve(near + penalty * np.eye(len(near)), y - y.mean())


def positive_ridge(
    parts: Sequence[tuple[Matrix, Matrix]], penalty: float, rounds: int = 2000
) -> Matrix:
    """Weights (k,) >= 0 of the mean squared error plus penalty * |w|^2, over (x, y) of several
    sources that count alike, centred already.

    More of a feature may not mean less complexity: a sign that one source alone asks for does not
    carry over to another. By coordinates, until none moves.
    """
    gram: Matrix = np.mean([x.T @ x / len(x) for x, _ in parts], axis=0) + penalty * np.eye(
        parts[0][0].shape[1]
    )
    aim: Matrix = np.mean([x.T @ y / len(x) for x, y in parts], axis=0)
    weights = np.zeros(len(aim))
    for _ in range(rounds):
        before = weights.copy()
        for j in range(len(aim)):
            weights[j] = max(0.0, weights[j] + (aim[j] - gram[j] @ weights) / gram[j, j])
        if np.abs(weights - before).max() < 1e-9:
            break
    return weights


def bradley_terry(differences: Sequence[Matrix], penalty: float) -> Matrix:
    """Weights (k,) under which the better of two is likelier, from the features of better minus
    worse, by Newton's method. Sources count alike.
    """
    x = np.concatenate(list(differences))
    share = np.concatenate(
        [np.full(len(one), 1 / len(one) / len(differences)) for one in differences]
    )
    weights = np.zeros(x.shape[1])
    for _ in range(50):
        wrong = 1 / (1 + np.exp(x @ weights))
        gradient = -(x * (share * wrong)[:, None]).sum(0) + penalty * weights
        curvature = (x * (share * wrong * (1 - wrong))[:, None]).T @ x + penalty * np.eye(
            len(weights)
        )
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return weights


def agreeing(
    by_family: Sequence[Sequence[Matrix]], always: int, penalty: float
) -> NDArray[np.bool_]:
    """Which features are kept: those that, beside the feature `always`, pull the same way in every
    family. bool (k,).
    """
    pulls = []
    for differences in by_family:
        k = differences[0].shape[1]
        pulls.append(
            [
                bradley_terry([one[:, [always, j]] for one in differences], penalty)[1]
                for j in range(k)
            ]
        )
    keep: NDArray[np.bool_] = np.abs(np.sign(pulls).sum(0)) == len(pulls)
    keep[always] = True
    return keep
