"""The limit that yields a wanted number of rows, by hand and against the sequential rule."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.selecting import load_selector
from deita_tasks.selecting import solve as solving
from deita_tasks.selecting.similarity.products import TorchBlockProduct
from deita_tasks.selecting.solve import Solution, solve
from tests.support.selection_reference import sequential

IDS, SCORES = list("abcd"), np.array([4.0, 3, 2, 1])
# To a: b 0.6, c 0, d -1. To b: c 0.8, d -0.6. c and d: 0.
ROWS = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]])


def below(limit):
    return float(np.nextafter(np.float32(limit), np.float32(-2)))


def test_by_hand():
    """Equal is allowed: all four from 0.8 on, when c may stand beside b; below it a, b and d, or
    under 0.6 a, c and d; below 0 a and d.
    """
    assert solve(IDS, SCORES, ROWS, 4) == Solution(0.8, 4)
    assert solve(IDS, SCORES, ROWS, 3) == Solution(0.0, 3)
    assert solve(IDS, SCORES, ROWS, 2) == Solution(-1.0, 2)
    assert solve(IDS, SCORES, ROWS, 1) == Solution(-1.0, 1)


def test_where_the_pool_runs_out_it_says_what_there_is():
    assert solve(IDS, SCORES, ROWS, 5) == Solution(1.0, 4)
    assert solve([], np.empty(0), np.zeros((0, 2)), 1) == Solution(1.0, 0)


def test_rows_that_cannot_be_compared_do_not_count():
    rows = np.vstack([ROWS, [[0, 0], [np.nan, 1]]])
    assert solve(list("abcdef"), np.array([4.0, 3, 2, 1, 5, 6]), rows, 4) == Solution(0.8, 4)
    assert solve(list("abcdef"), np.array([4.0, 3, 2, 1, 5, 6]), rows, 5) == Solution(1.0, 4)


POOLS = st.one_of(
    st.lists(
        st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9)),
        min_size=1,
        max_size=14,
    ).map(np.array),
    st.builds(
        lambda seed, n, d: np.random.default_rng(seed).standard_normal((n, d)),
        st.integers(0, 2**32),
        st.integers(1, 60),
        st.integers(2, 5),
    ),
)


@settings(deadline=None, max_examples=200)
@given(POOLS, st.integers(1, 62))
def test_it_yields_the_budget_and_the_next_smaller_limit_does_not(rows, budget):
    ids, scores = [f"{i:02d}" for i in range(len(rows))], [float(i % 5) for i in range(len(rows))]

    def kept(limit):
        return len(sequential(ids, scores, rows.astype(np.float32), budget, limit)[0])

    limit, count = solve(ids, np.array(scores), rows.astype(np.float32), budget)
    assert count == kept(limit)
    if count < budget:
        assert limit == 1.0
    elif limit > -1.0:
        assert kept(below(limit)) < budget == count


def clustered(rows, clusters):
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((clusters, 16))[
        rng.integers(0, clusters, rows)
    ] + 0.2 * rng.standard_normal((rows, 16))
    return [f"{i:04d}" for i in range(rows)], rng.random(rows), vectors.astype(np.float32)


def test_what_a_trial_remembers_changes_no_answer_and_saves_work(monkeypatch):
    """Over many blocks: the limit is that of the rule, found in few trials, and the last of them
    compare few rows.
    """
    ids, scores, vectors = clustered(3000, 60)
    monkeypatch.setattr(solving, "BLOCK_ROWS", 64)
    monkeypatch.setattr(solving, "LOOK_AHEAD_ROWS", 256)
    compared_rows, trials = count_compared_rows(monkeypatch), []
    run = solving._TrialRunner.run

    def watched_run(runner, limit, count_all=False):
        compared_rows.clear()
        trial = run(runner, limit, count_all)
        trials.append((np.float32(limit), trial.kept, sum(compared_rows)))
        return trial

    def kept_by_diverse(budget, limit):
        selector = load_selector("diverse", budget=budget, max_similarity=limit)
        return len(selector.select(ids, scores, vectors).kept)

    monkeypatch.setattr(solving._TrialRunner, "run", watched_run)
    for budget in (20, 300):
        trials.clear()
        limit, kept = solve(ids, scores, vectors, budget)
        assert kept == budget
        assert kept_by_diverse(budget, limit) == budget
        assert kept_by_diverse(budget, below(limit)) < budget
        assert len(trials) < 25
        assert len({tried_limit for tried_limit, _, _ in trials}) == len(trials)
        for tried_limit, kept, _ in trials:
            assert (kept == budget) == (tried_limit >= np.float32(limit))
        assert trials[-1][2] < 1500, "most rows are known to be blocked"


def count_compared_rows(monkeypatch):
    """The sizes of the blocks that are compared from now on."""
    sizes = []
    decide = solving.CosineKeptRows.decide

    def watched_decide(kept_rows, rows):
        sizes.append(len(rows))
        return decide(kept_rows, rows)

    monkeypatch.setattr(solving.CosineKeptRows, "decide", watched_decide)
    return sizes


def test_a_trial_ends_when_it_is_settled(monkeypatch):
    """When the budget is kept, and when too few rows are left for it."""
    ids, scores, vectors = clustered(1000, 30)
    compared_rows = count_compared_rows(monkeypatch)
    runner = solving._TrialRunner(ids, scores, vectors, 700, "cpu")
    assert runner.run(np.float32(1)).kept == 700
    assert sum(compared_rows) == 768
    compared_rows.clear()
    assert runner.run(np.float32(-1)).kept == 1
    assert sum(compared_rows) == 512, (
        "with 699 of 1,000 still to keep, no more than 300 may be blocked"
    )


def test_torch_finds_the_same_limit(monkeypatch):
    ids, scores, vectors = clustered(1000, 30)
    expected = solve(ids, scores, vectors, 100)
    devices = []

    def torch_product_for(device):
        devices.append(device)
        return lambda rows: TorchBlockProduct(rows, "cpu")

    monkeypatch.setattr(solving, "block_product_for", torch_product_for)
    assert solve(ids, scores, vectors, 100, device="cuda:1") == expected
    assert devices == ["cuda:1"]
