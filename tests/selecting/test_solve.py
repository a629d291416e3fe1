"""The limit that yields a wanted number of rows, by hand and against the sequential rule."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.selecting import load_selector
from deita_tasks.selecting import solve as solving
from deita_tasks.selecting.similarity.products import TorchScreen
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
    monkeypatch.setattr(solving, "BLOCK", 64)
    monkeypatch.setattr(solving, "AHEAD", 256)
    compared, counts, decide, run = [], [], solving.CosineSpace.decide, solving._Trials.run
    monkeypatch.setattr(
        solving.CosineSpace,
        "decide",
        lambda space, rows: compared.append(len(rows)) or decide(space, rows),
    )

    def watched(trials, limit, to_the_end=False):
        compared.clear()
        trial = run(trials, limit, to_the_end)
        counts.append((float(limit), trial.kept, sum(compared)))
        return trial

    monkeypatch.setattr(solving._Trials, "run", watched)
    for budget in (20, 300):
        counts.clear()
        limit, kept = solve(ids, scores, vectors, budget)
        assert kept == budget
        assert (
            len(
                load_selector("diverse", budget=budget, max_similarity=limit)
                .select(ids, scores, vectors)
                .kept
            )
            == budget
        )
        assert (
            len(
                load_selector("diverse", budget=budget, max_similarity=below(limit))
                .select(ids, scores, vectors)
                .kept
            )
            < budget
        )
        assert len(counts) < 25
        assert len({tried for tried, _, _ in counts}) == len(counts)
        assert all((kept == budget) == (tried >= np.float32(limit)) for tried, kept, _ in counts)
        assert counts[-1][2] < 1500, "most rows are known to be shut out"


def test_a_trial_ends_when_it_is_settled(monkeypatch):
    """When the budget is kept, and when too few rows are left for it."""
    ids, scores, vectors = clustered(1000, 30)
    seen = []
    decide = solving.CosineSpace.decide
    monkeypatch.setattr(
        solving.CosineSpace,
        "decide",
        lambda space, rows: seen.append(len(rows)) or decide(space, rows),
    )
    trials = solving._Trials(ids, scores, vectors, 700, "cpu")
    assert trials.run(np.float32(1)).kept == 700
    assert sum(seen) == 768
    seen.clear()
    assert trials.run(np.float32(-1)).kept == 1
    assert sum(seen) == 512, "with 699 of 1,000 still to keep, no more than 300 may be shut out"


def test_torch_finds_the_same_limit(monkeypatch):
    ids, scores, vectors = clustered(1000, 30)
    expected = solve(ids, scores, vectors, 100)
    asked = []
    monkeypatch.setattr(
        solving,
        "screens_on",
        lambda device: asked.append(device) or (lambda rows: TorchScreen(rows, "cpu")),
    )
    assert solve(ids, scores, vectors, 100, device="cuda:1") == expected
    assert asked == ["cuda:1"]
