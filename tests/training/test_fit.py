"""The fits of the mini scorers, against what is known about their optimum."""

from __future__ import annotations

import numpy as np
import pytest

from deita_tasks.training.fit import (
    centre_within_groups,
    consistent_features,
    fit_bradley_terry,
    fit_kernel_ridge,
    fit_positive_ridge,
    normal_scores,
    spearman,
)

RANDOM = np.random.default_rng(0)


def test_ranks_and_their_correlation() -> None:
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 10, 100, 1000])) == pytest.approx(1)
    ties = spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 1, 0, 0]))
    assert ties == pytest.approx(-0.8944, abs=1e-4)  # -2 / sqrt(5)
    scores = normal_scores(np.array([30.0, 10, 20, 20]))
    assert scores[1] == pytest.approx(-1.1503, abs=1e-4)  # the normal distribution at 1/8
    assert scores[2] == scores[3] == pytest.approx(0)  # the mean rank, 2.5 of 4
    assert scores[0] == -scores[1]


def test_centring_leaves_what_differs_within_a_group() -> None:
    x = np.array([[1.0, 5], [3, 5], [10, 0]])
    groups = np.array([0, 0, 1])
    np.testing.assert_allclose(centre_within_groups(x, groups), [[-1, 0], [1, 0], [0, 0]])
    np.testing.assert_allclose(centre_within_groups(x[:, 0], groups), [-1, 1, 0])


def test_kernel_ridge_of_two_texts_by_hand() -> None:
    """(kernel + 1) w = y less its mean: 2 a + b / 2 = -1 and a / 2 + 2 b = 1."""
    kernel = np.array([[1.0, 0.5], [0.5, 1.0]])
    weights = fit_kernel_ridge(kernel, np.array([1.0, 3.0]), 1.0)
    np.testing.assert_allclose(weights, [-2 / 3, 2 / 3])


def test_kernel_ridge_is_where_the_gradient_vanishes() -> None:
    """Of |kernel w - y|^2 + penalty * w' kernel w: kernel (kernel w - y + penalty w) = 0."""
    x = RANDOM.normal(size=(12, 3))
    y = RANDOM.normal(3, 1, size=12)
    kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(2))
    weights = fit_kernel_ridge(kernel, y, 0.3)
    gradient = kernel @ (kernel @ weights - (y - y.mean()) + 0.3 * weights)
    np.testing.assert_allclose(gradient, 0, atol=1e-10)


def test_positive_ridge_meets_the_conditions_of_the_optimum() -> None:
    sources = [(RANDOM.normal(size=(n, 6)), RANDOM.normal(size=n)) for n in (40, 15)]
    weights = fit_positive_ridge(sources, 0.05)
    gradients = [x.T @ (x @ weights - y) / len(x) for x, y in sources]
    slope = np.mean(gradients, axis=0) + 0.05 * weights
    assert np.all(weights >= 0) and np.any(weights == 0) and np.any(weights > 0)
    np.testing.assert_allclose(slope[weights > 0], 0, atol=1e-7)
    assert np.all(slope[weights == 0] >= 0)


def test_bradley_terry_is_where_the_gradient_vanishes_and_sources_count_alike() -> None:
    large = RANDOM.normal(0.5, 1, (200, 3))
    small = RANDOM.normal(-0.2, 1, (20, 3))
    weights = fit_bradley_terry([large, small], 0.01)
    gradients = [(x / (1 + np.exp(x @ weights))[:, None]).mean(0) / 2 for x in (large, small)]
    np.testing.assert_allclose(sum(gradients) - 0.01 * weights, 0, atol=1e-8)
    repeated = fit_bradley_terry([np.tile(large, (3, 1)), small], 0.01)
    np.testing.assert_allclose(repeated, weights, atol=1e-8)


def test_a_feature_with_different_signs_in_two_families_is_left_out() -> None:
    length, shared, torn = np.abs(RANDOM.normal(size=(3, 400)))
    first = np.stack([length, shared, torn], 1)
    second = np.stack([length, shared, -torn], 1)
    assert consistent_features([[first], [second]], 0, 0.01).tolist() == [True, True, False]
    # the feature beside which the others are fitted is always kept
    assert consistent_features([[-first], [second]], 0, 0.01).tolist() == [True, False, True]
