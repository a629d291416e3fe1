"""The limit that yields a wanted number of rows, by hand and against every limit that there is."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.selecting import load_selector
from deita_tasks.selecting.solve import STEPS, Solution, solve
from tests.selecting.reference import sequential

IDS, SCORES = list("abcd"), np.array([4.0, 3, 2, 1])
# To a: b 0.6, c 0, d -1. To b: c 0.8, d -0.6. c and d: 0.
ROWS = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]])


def test_by_hand():
    """Equal is allowed: all four from 0.8 on, when c may stand beside b; below it a, b and d, or under 0.6 a, c and d; below 0 a and d."""
    assert solve(IDS, SCORES, ROWS, 4) == Solution(0.8, 4, 3)
    assert solve(IDS, SCORES, ROWS, 3) == Solution(0.0, 3, 2)
    assert solve(IDS, SCORES, ROWS, 2) == Solution(-1.0, 2, None)
    assert solve(IDS, SCORES, ROWS, 1) == Solution(-1.0, 1, None)


def test_where_the_pool_runs_out_it_says_what_there_is():
    assert solve(IDS, SCORES, ROWS, 5) == Solution(1.0, 4, None)
    assert solve([], np.empty(0), np.zeros((0, 2)), 1) == Solution(1.0, 0, None)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9)), min_size=1, max_size=14),
    st.integers(1, 16),
)
def test_it_yields_the_budget_and_the_next_smaller_limit_does_not(rows, budget):
    vectors = np.array(rows, np.float32)
    ids, scores = [f"{i:02d}" for i in range(len(rows))], [float(i % 5) for i in range(len(rows))]

    def kept(limit):
        return len(sequential(ids, scores, vectors, budget, limit)[0])

    limit, count, below = solve(ids, np.array(scores), vectors, budget)
    assert count == kept(limit)
    if count < budget:
        assert (limit, below) == (1.0, None)
    elif below is None:
        assert limit == -1.0
    else:
        assert round(limit * STEPS) / STEPS == limit
        assert below == kept((round(limit * STEPS) - 1) / STEPS) < budget == count


def test_it_asks_few_times(monkeypatch):
    """A bisection over 20,000 limits: each answer costs a selection of the whole pool."""
    asked = []

    def watched(name, **options):
        asked.append(options["max_similarity"])
        return load_selector(name, **options)

    monkeypatch.setattr("deita_tasks.selecting.solve.load_selector", watched)
    solve(IDS, SCORES, ROWS, 3)
    assert len(asked) == len(set(asked)) <= 17
