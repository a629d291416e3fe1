"""The fits of the mini scorers.

Kernel ridge regression, ridge regression with non-negative weights, and Bradley-Terry models of
comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

Matrix: TypeAlias = NDArray[np.float64]  # (n, k), or (n,) for a vector

CONVERGED = 1e-9  # the largest step of a weight in the last round of an iteration


def normal_scores(labels: Matrix) -> Matrix:
    """Return the normal distribution's values at the labels' ranks: float64 (n,).

    Scales differ between sources, ranks do not. Equal labels share their mean rank.
    """
    ranks = pd.Series(labels).rank().to_numpy()
    normal = NormalDist()
    shares = [float(rank - 0.5) / len(labels) for rank in ranks]
    return np.array([normal.inv_cdf(share) for share in shares])


def spearman(x: Matrix, y: Matrix) -> float:
    """Return the rank correlation, ties at their mean rank; NaN if x or y is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(spearmanr(x, y).statistic)


def centre_within_groups(x: Matrix, groups: NDArray[np.int64]) -> Matrix:
    """Return x less the mean of its group: what differs within a group. In the shape of x.

    `groups`: (n,), a number for the group of each row.
    """
    frame = pd.DataFrame(x)
    means = frame.groupby(groups).transform("mean")
    return (frame - means).to_numpy().reshape(x.shape)


def fit_kernel_ridge(kernel: Matrix, y: Matrix, penalty: float) -> Matrix:
    """Return the weights w (n,) that minimise |kernel w - y|^2 + penalty * w' kernel w.

    `kernel`: (n, n), how near n examples are to each other. y is centred first.
    """
    from sklearn.kernel_ridge import KernelRidge

    ridge = KernelRidge(alpha=penalty, kernel="precomputed").fit(kernel, y - y.mean())
    weights: Matrix = ridge.dual_coef_
    return weights


def fit_positive_ridge(
    sources: Sequence[tuple[Matrix, Matrix]], penalty: float, rounds: int = 2000
) -> Matrix:
    """Return the weights (k,) >= 0 that minimise the mean squared error plus penalty * |w|^2.

    Over (x, y) of several sources that count alike, already centred. More of a feature may not mean
    less complexity: a sign that only one source asks for does not carry over to another. By
    coordinate descent, until no weight moves.
    """
    features = sources[0][0].shape[1]
    grams = [x.T @ x / len(x) for x, _ in sources]
    gram: Matrix = np.mean(grams, axis=0) + penalty * np.eye(features)
    target: Matrix = np.mean([x.T @ y / len(x) for x, y in sources], axis=0)
    weights = np.zeros(len(target))
    for _ in range(rounds):
        before = weights.copy()
        for j in range(len(target)):
            step = (target[j] - gram[j] @ weights) / gram[j, j]
            weights[j] = max(0.0, weights[j] + step)
        if np.abs(weights - before).max() < CONVERGED:
            break
    return weights


def fit_bradley_terry(differences: Sequence[Matrix], penalty: float) -> Matrix:
    """Return the weights (k,) under which the better of two responses is likelier.

    `differences`: for each source, (n, k), the features of the better response less those of the
    worse. Sources count alike. By Newton's method.
    """
    x = np.concatenate(list(differences))
    shares = [np.full(len(source), 1 / len(source) / len(differences)) for source in differences]
    share = np.concatenate(shares)
    weights = np.zeros(x.shape[1])
    for _ in range(50):
        wrong = 1 / (1 + np.exp(x @ weights))  # the probability of the worse response
        gradient = -(x * (share * wrong)[:, None]).sum(0) + penalty * weights
        curvature = (x * (share * wrong * (1 - wrong))[:, None]).T @ x
        curvature = curvature + penalty * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < CONVERGED:
            break
    return weights


def consistent_features(
    families: Sequence[Sequence[Matrix]], always: int, penalty: float
) -> NDArray[np.bool_]:
    """Return which features have the same sign in every family, beside the feature `always`.

    bool (k,). `families`: the `differences` of each family's sources.
    """
    weights = [_weights_beside(differences, always, penalty) for differences in families]
    consistent: NDArray[np.bool_] = np.abs(np.sign(weights).sum(0)) == len(weights)
    consistent[always] = True
    return consistent


def _weights_beside(differences: Sequence[Matrix], always: int, penalty: float) -> list[float]:
    """Return each feature's weight in a model of that feature and `always` alone: k numbers.

    `differences`: (n, k) for each source. For `always` itself the number means nothing.
    """
    weights: list[float] = []
    for j in range(differences[0].shape[1]):
        columns = [source[:, [always, j]] for source in differences]
        weights.append(fit_bradley_terry(columns, penalty)[1])
    return weights
