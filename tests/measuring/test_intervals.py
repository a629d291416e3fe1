"""Bootstrap intervals, against values worked out by hand and by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from deita_tasks.measuring.intervals import ItemScores, compare


def scores(*runs: list[float], weights: list[float] | None = None) -> ItemScores:
    values = np.array(runs, np.float64)
    return ItemScores(values, np.array(weights or [1.0] * values.shape[1]))


def test_means_are_over_items_by_their_weights_and_then_over_trainings() -> None:
    side = scores([1, 4], [3, 6], weights=[3, 1])
    assert side.by_run().tolist() == [1.75, 3.75]  # (3 + 4) / 4, (9 + 6) / 4
    assert side.mean() == 2.75


def test_the_same_difference_in_every_item_is_certain() -> None:
    first = scores([1.0, 5.0, 2.0, 9.0])
    second = scores([0.5, 4.5, 1.5, 8.5])
    assert compare(first, second) == pytest.approx((0.5, 0.5, 0.5))
    assert compare(first, second).is_clear
    assert not compare(first, first).is_clear


def test_items_alone_agree_with_scipys_paired_bootstrap() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.normal(0.3, 1, 60), generator.normal(0, 1, 60)
    interval = compare(scores(list(first)), scores(list(second)))
    reference = stats.bootstrap(
        (first - second,), np.mean, method="percentile", n_resamples=20_000, rng=2
    ).confidence_interval
    assert interval.difference == pytest.approx(np.mean(first - second))
    assert interval.low == pytest.approx(reference.low, abs=0.02)
    assert interval.high == pytest.approx(reference.high, abs=0.02)


def test_trainings_that_differ_widen_the_interval() -> None:
    """One side is 0; the other was trained twice, to -1 and to 1 on every item. A sample draws
    -1 twice, 1 twice, or both once: the interval has to reach from -1 to 1.
    """
    interval = compare(scores([-1.0] * 50, [1.0] * 50), scores([0.0] * 50))
    assert interval == pytest.approx((0, -1, 1))


def test_a_seed_repeats_the_interval() -> None:
    first, second = scores([1.0, 2.0, 4.0]), scores([2.0, 1.0, 1.0])
    assert compare(first, second, seed=3) == compare(first, second, seed=3)
