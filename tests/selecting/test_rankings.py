"""The strategies that compare no rows, and the ledger that all share."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_tasks.errors import UsageError
from deita_tasks.records import Rejection
from deita_tasks.selecting import SELECTORS, load_selector
from deita_tasks.selecting.ledger import Ledger

NAN, INF = float("nan"), float("inf")


def test_top_score_takes_the_best_and_ties_go_by_id():
    selection = load_selector("top_score", budget=3).select(
        ["d", "b", "c", "a", "e"], np.array([2, 5, 2, 2, 9]), None
    )
    assert selection.kept == ["e", "b", "a"]
    assert list(selection.rejected) == [
        Rejection("c", "below_budget"),
        Rejection("d", "below_budget"),
    ]


def test_rows_without_a_finite_score_come_last_by_id_and_are_unscorable():
    ids, scores = ["x", "b", "a", "y", "c"], np.array([1, NAN, INF, 2, -INF])
    for name in ("top_score", "random"):
        selection = load_selector(name, budget=5).select(ids, scores, None)
        assert sorted(selection.kept) == ["x", "y"]
        assert list(selection.rejected) == [
            Rejection("a", "unscorable"),
            Rejection("b", "unscorable"),
            Rejection("c", "unscorable"),
        ]


def test_random_is_the_order_of_sha256():
    """Golden: the order of `printf '<seed>:<id>' | sha256sum` over a..e."""
    ids, scores = list("abcde"), np.ones(5)
    assert load_selector("random", budget=5).select(ids, scores, None).kept == [
        "d",
        "a",
        "c",
        "b",
        "e",
    ]
    assert load_selector("random", budget=3, seed=7).select(ids, scores, None).kept == [
        "c",
        "e",
        "a",
    ]


def test_random_draws_evenly():
    ids = [f"row {i}" for i in range(40)]
    drawn = [
        identity
        for seed in range(300)
        for identity in load_selector("random", budget=10, seed=seed)
        .select(ids, np.ones(40), None)
        .kept
    ]
    counts = np.array([drawn.count(identity) for identity in ids])
    assert counts.sum() == 3000 and abs(counts - 75).max() < 5 * np.sqrt(300 * 0.25 * 0.75)


@given(
    st.lists(st.tuples(st.text(), st.sampled_from([1.0, 2.0, NAN])), unique_by=lambda row: row[0]),
    st.integers(1, 9),
    st.randoms(),
)
def test_neither_order_nor_other_rows_change_a_ranking(pool, budget, random):
    shuffled = list(pool)
    random.shuffle(shuffled)
    for name in ("top_score", "random"):
        one, other = (
            load_selector(name, budget=budget).select(
                [row[0] for row in rows], np.array([row[1] for row in rows]), None
            )
            for rows in (pool, shuffled)
        )
        everything = load_selector(name, budget=len(pool) + 1).select(
            [row[0] for row in pool], [row[1] for row in pool], None
        )
        assert one.kept == other.kept == everything.kept[:budget]
        assert list(one.rejected) == list(other.rejected)
        assert sorted([*one.kept, *(rejection.id for rejection in one.rejected)]) == sorted(
            row[0] for row in pool
        )


@given(st.lists(st.sampled_from([0.0, -0.0, 1.5, -2.0, NAN, INF]), max_size=30), st.randoms())
def test_ranks_are_those_of_a_sort_by_score_then_id(scores, random):
    ids = [f"{i:02d}" for i in range(len(scores))]
    random.shuffle(ids)
    finite = sorted(
        (i for i, score in enumerate(scores) if abs(score) < INF),
        key=lambda i: (-scores[i], ids[i]),
    )
    rest = sorted(
        (i for i, score in enumerate(scores) if not abs(score) < INF), key=ids.__getitem__
    )
    ledger = Ledger(ids, scores)
    assert ledger.order.tolist() == finite + rest
    assert ledger.candidates == len(finite)


@given(
    st.lists(st.sampled_from("abc"), max_size=30),
    st.integers(1, 4),
    st.integers(1, 12),
    st.randoms(),
)
def test_a_full_stratum_is_passed_over(strata, per_stratum, budget, random):
    ids = [f"{i:02d}" for i in range(len(strata))]
    scores = [random.choice([1, 2, 3]) for _ in ids]
    for name in ("top_score", "random"):
        order = load_selector(name, budget=99).select(ids, scores, None).kept
        expected: list[str] = []
        for identity in order:
            if [strata[int(other)] for other in expected].count(
                strata[int(identity)]
            ) < per_stratum:
                expected.append(identity)
        selection = load_selector(name, budget=budget, per_stratum=per_stratum).select(
            ids, scores, None, strata
        )
        assert selection.kept == expected[:budget]
        assert {rejection.reason for rejection in selection.rejected} <= {"below_budget"}
        assert len(selection.kept) + len(selection.rejected) == len(ids)


def test_strata_are_asked_for():
    selector = load_selector("top_score", budget=2, per_stratum=1, strata="source")
    with pytest.raises(UsageError, match="no strata for 2 ids: expected the stratum of each id"):
        selector.select(["a", "b"], np.ones(2), None)
    with pytest.raises(UsageError, match="1 strata for 2 ids"):
        selector.select(["a", "b"], np.ones(2), None, ["x"])


@pytest.mark.parametrize(
    ("name", "ranking"),
    [("complexity_only", "complexity"), ("quality_only", "quality"), ("length", "length")],
)
def test_the_simple_rankings_say_which_scores_they_take(name, ranking):
    selector = load_selector(name, budget=1)
    assert selector.ranking == ranking and not selector.needs_embeddings
    assert selector.select(["a", "b"], np.array([1, 2]), None).kept == ["b"]
    with pytest.raises(UsageError, match="ranking"):
        load_selector(name, budget=1, ranking="evol")


def test_the_rejected_are_a_sequence():
    rejected = (
        load_selector("top_score", budget=1)
        .select(["a", "b", "c"], np.array([3, 2, 1]), None)
        .rejected
    )
    below = [Rejection("b", "below_budget"), Rejection("c", "below_budget")]
    assert len(rejected) == 2 and list(rejected) == below
    assert (
        rejected[-1] == below[-1]
        and list(rejected[1:]) == below[1:]
        and list(reversed(rejected)) == below[::-1]
    )
    assert below[0] in rejected
    with pytest.raises(IndexError):
        rejected[2]


def test_a_pool_costs_bytes_a_row_and_no_objects():
    """65 bytes a row at the peak, of which 2 * 16 for the set that finds repeated ids; a Rejection
    alone would be 88.
    """
    ids, scores = [f"{i:032x}" for i in range(200_000)], np.random.default_rng(0).random(200_000)
    tracemalloc.start()
    selection = load_selector("top_score", budget=1000).select(ids, scores, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(selection.rejected) == 199_000
    assert peak < 110 * len(ids)


@pytest.mark.parametrize("name", SELECTORS)
def test_every_strategy_refuses_what_it_cannot_use(name):
    with pytest.raises(UsageError, match=f"strategy '{name}': option 'budget' is required"):
        load_selector(name)
    with pytest.raises(UsageError, match="budget = 0"):
        load_selector(name, budget=0)
    with pytest.raises(UsageError, match="unknown option 'treshold'"):
        load_selector(name, budget=1, treshold=0.9)
    with pytest.raises(UsageError, match="more than once"):
        load_selector(name, budget=1).select(["a", "a"], np.ones(2), np.eye(2))
    with pytest.raises(UsageError, match="not numbers"):
        load_selector(name, budget=1).select(["a", "b"], ["one", "two"], np.eye(2))


def test_unknown_strategies_are_named():
    with pytest.raises(UsageError, match=r"unknown strategy 'diverze'.*did you mean 'diverse'"):
        load_selector("diverze", budget=1)
