"""The strategies that compare no rows: top_score, its baselines, and random."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_tasks.errors import UsageError
from deita_tasks.records import Rejection
from deita_tasks.selecting import load_selector

NAN, INF = float("nan"), float("inf")


def test_top_score_keeps_the_best_and_ties_go_by_id():
    selector = load_selector("top_score", budget=3)
    selection = selector.select(["d", "b", "c", "a", "e"], np.array([2, 5, 2, 2, 9]), None)
    assert selection.kept == ["e", "b", "a"]
    assert list(selection.rejected) == [
        Rejection("c", "below_budget"),
        Rejection("d", "below_budget"),
    ]


@pytest.mark.parametrize("name", ["top_score", "random"])
def test_rows_without_a_finite_score_come_last_by_id_and_are_unscorable(name):
    ids, scores = ["x", "b", "a", "y", "c"], np.array([1, NAN, INF, 2, -INF])
    selection = load_selector(name, budget=5).select(ids, scores, None)
    assert sorted(selection.kept) == ["x", "y"]
    assert list(selection.rejected) == [
        Rejection("a", "unscorable"),
        Rejection("b", "unscorable"),
        Rejection("c", "unscorable"),
    ]


@pytest.mark.parametrize("name", ["top_score", "random"])
@given(
    rows=st.lists(
        st.tuples(st.text(), st.sampled_from([1.0, 2.0, NAN])), unique_by=lambda row: row[0]
    ),
    budget=st.integers(1, 9),
    random=st.randoms(),
)
def test_neither_order_nor_budget_changes_a_ranking(name, rows, budget, random):
    """For ids of any text."""
    shuffled = list(rows)
    random.shuffle(shuffled)

    def select(rows, budget):
        ids, scores = [row[0] for row in rows], np.array([row[1] for row in rows])
        return load_selector(name, budget=budget).select(ids, scores, None)

    in_order, out_of_order = select(rows, budget), select(shuffled, budget)
    everything = select(rows, len(rows) + 1)
    assert in_order.kept == out_of_order.kept == everything.kept[:budget]
    assert list(in_order.rejected) == list(out_of_order.rejected)
    rejected_ids = [rejection.id for rejection in in_order.rejected]
    assert sorted([*in_order.kept, *rejected_ids]) == sorted(row[0] for row in rows)


@pytest.mark.parametrize("name", ["top_score", "random"])
@given(
    strata=st.lists(st.sampled_from("abc"), max_size=30),
    per_stratum=st.integers(1, 4),
    budget=st.integers(1, 12),
    random=st.randoms(),
)
def test_a_full_stratum_is_passed_over(name, strata, per_stratum, budget, random):
    ids = [f"{i:02d}" for i in range(len(strata))]
    scores = [random.choice([1, 2, 3]) for _ in ids]
    expected: list[str] = []
    for row_id in load_selector(name, budget=99).select(ids, scores, None).kept:
        kept_strata = [strata[int(kept_id)] for kept_id in expected]
        if kept_strata.count(strata[int(row_id)]) < per_stratum:
            expected.append(row_id)
    selector = load_selector(name, budget=budget, per_stratum=per_stratum)
    selection = selector.select(ids, scores, None, strata)
    assert selection.kept == expected[:budget]
    kept_strata = [strata[int(kept_id)] for kept_id in selection.kept]
    for rejection in selection.rejected:
        is_full = kept_strata.count(strata[int(rejection.id)]) == per_stratum
        assert rejection.reason == ("stratum_full" if is_full else "below_budget")
    assert len(selection.kept) + len(selection.rejected) == len(ids)


@pytest.mark.parametrize(
    ("name", "ranking"),
    [("complexity_only", "complexity"), ("quality_only", "quality"), ("length", "length")],
)
def test_the_simple_rankings_say_which_scores_they_take(name, ranking):
    selector = load_selector(name, budget=1)
    assert selector.ranking == ranking
    assert not selector.needs_embeddings
    assert selector.select(["a", "b"], np.array([1, 2]), None).kept == ["b"]
    with pytest.raises(UsageError, match="ranking"):
        load_selector(name, budget=1, ranking="evol")
