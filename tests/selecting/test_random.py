"""The random control: a draw by hash."""

import numpy as np

from deita_tasks.selecting import load_selector


def test_random_is_the_order_of_sha256():
    """Golden: the order of `printf '<seed>:<id>' | sha256sum` over a..e."""
    ids, scores = list("abcde"), np.ones(5)
    everything = load_selector("random", budget=5).select(ids, scores, None)
    assert everything.kept == list("dacbe")
    three = load_selector("random", budget=3, seed=7).select(ids, scores, None)
    assert three.kept == list("cea")


def test_random_draws_evenly():
    ids = [f"row {i}" for i in range(40)]
    drawn = []
    for seed in range(300):
        selector = load_selector("random", budget=10, seed=seed)
        drawn += selector.select(ids, np.ones(40), None).kept
    counts = np.array([drawn.count(row_id) for row_id in ids])
    assert counts.sum() == 3000
    assert abs(counts - 75).max() < 5 * np.sqrt(300 * 0.25 * 0.75)
