"""k_center, mmr and facility_location against their definitions, one row at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.records import Rejection
from deita_tasks.selecting import facility_location, load_selector, marginal
from tests.selecting.test_diverse import names, pools
from tests.support.selection_reference import similarity, unit


@pytest.fixture(autouse=True)
def small_waves(monkeypatch):
    """So that a pool of twenty rows goes through waves and batches."""
    monkeypatch.setattr(marginal, "WAVE", 3)
    monkeypatch.setattr(marginal, "BATCH", 2)
    monkeypatch.setattr(facility_location, "BLOCK", 4)


def ranked(ids, scores, rows):
    """Positions of the usable rows, best first, and the others' ids."""
    finite = sorted(
        (i for i in range(len(ids)) if np.isfinite(scores[i])), key=lambda i: (-scores[i], ids[i])
    )
    return [i for i in finite if unit(rows[i])], {
        ids[i] for i in range(len(ids)) if not np.isfinite(scores[i]) or not unit(rows[i])
    }


def marginal_order(ids, scores, rows, budget, weight, strata=None, per_stratum=99):
    able, _ = ranked(ids, scores, rows)
    units = {i: unit(rows[i]) for i in able}
    worst, best = (bound((scores[i] for i in able), default=0) for bound in (min, max))
    worth = {i: (scores[i] - worst) / (best - worst) if best > worst else 0.0 for i in able}
    kept = []
    while able and len(kept) < budget:
        value = {
            i: weight * worth[i]
            - (1 - weight) * max((float(similarity(units[i], units[k])) for k in kept), default=0)
            for i in able
        }
        pick = max(able, key=value.__getitem__)  # the first of several, so the best ranked
        kept.append(pick)
        able = [
            i
            for i in able
            if i != pick
            and (strata is None or [strata[k] for k in kept].count(strata[i]) < per_stratum)
        ]
    return [ids[i] for i in kept]


@given(
    pools(),
    st.integers(1, 30),
    st.sampled_from([0, 0.25, 0.5, 0.8, 1]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=250, deadline=None)
def test_mmr_and_k_center_take_the_largest_margin_each_time(pool, budget, weight, random):
    ids, scores, rows = pool
    order = list(range(len(ids)))
    random.shuffle(order)
    for name, options in (
        ("mmr", {"weight": weight}),
        *([("k_center", {})] if weight == 0 else []),
    ):
        selector = load_selector(name, budget=budget, **options)
        selection = selector.select([ids[i] for i in order], scores[order], rows[order])
        assert selection.kept == marginal_order(ids, scores, rows, budget, weight)
        unusable = ranked(ids, scores, rows)[1]
        assert {
            rejection.id for rejection in selection.rejected if rejection.reason == "unscorable"
        } == unusable
        assert {rejection.reason for rejection in selection.rejected} <= {
            "below_budget",
            "unscorable",
        }
        assert sorted(
            [*selection.kept, *(rejection.id for rejection in selection.rejected)]
        ) == sorted(ids)


@given(pools(), st.integers(1, 3), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_strata(pool, per_stratum, random):
    ids, scores, rows = pool
    strata = [random.choice("ab") for _ in ids]
    found = load_selector("mmr", budget=9, per_stratum=per_stratum).select(
        ids, scores, rows, strata
    )
    assert found.kept == marginal_order(ids, scores, rows, 9, 0.5, strata, per_stratum)
    located = (
        load_selector("facility_location", budget=30, per_stratum=per_stratum)
        .select(ids, scores, rows, strata)
        .kept
    )
    of = dict(zip(ids, strata, strict=True))
    able = [ids[i] for i in ranked(ids, scores, rows)[0]]
    for stratum in "ab":
        assert sum(of[x] == stratum for x in located) == min(
            per_stratum, sum(of[x] == stratum for x in able)
        )


def test_mmr_of_weight_1_is_top_score_and_of_0_k_center():
    rng = np.random.default_rng(0)
    rows, scores = rng.standard_normal((300, 12)).astype(np.float32), rng.random(300)

    def kept(name, **options):
        return load_selector(name, budget=120, **options).select(names(300), scores, rows).kept

    assert kept("mmr", weight=1) == kept("top_score")
    assert kept("mmr", weight=0) == kept("k_center")
    assert kept("mmr", weight=0)[0] == kept("top_score")[0]
    assert len({tuple(kept("mmr", weight=weight)) for weight in (0, 0.3, 0.6, 1)}) == 4


def test_k_center_by_hand():
    """Rows at 0, 90, 100 and 45 degrees, the first the best: then 100, the farthest from it; then
    45; then 90.
    """
    angles = np.radians([0, 90, 100, 45])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert load_selector("k_center", budget=4).select(
        list("abcd"), np.array([4, 3, 2, 1]), rows
    ).kept == ["a", "c", "d", "b"]


def coverage(units, kept):
    return np.maximum(units @ units[kept].T, 0).max(axis=1).sum()


@given(st.integers(0, 2**32), st.integers(1, 14))
@settings(max_examples=60, deadline=None)
def test_facility_location_takes_the_largest_gain_each_time(seed, budget):
    rng = np.random.default_rng(seed)
    rows, scores = rng.standard_normal((25, 5)).astype(np.float32), rng.random(25)
    units = rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
    kept = []
    for _ in range(budget):
        reached = {
            i: coverage(units, [*kept, i]) for i in np.argsort(-scores).tolist() if i not in kept
        }
        kept.append(
            next(i for i, covered in reached.items() if covered >= max(reached.values()) - 1e-4)
        )
    assert load_selector("facility_location", budget=budget).select(
        names(25), scores, rows
    ).kept == [names(25)[i] for i in kept]


def test_facility_location_by_hand():
    """Two bunches and a row apart: one of the larger bunch, one of the smaller, then the row apart;
    of copies, the better.
    """
    rows = np.array([[1, 0, 0]] * 3 + [[0, 1, 0]] * 2 + [[0, 0, 1]], np.float32)
    selection = load_selector("facility_location", budget=4).select(
        list("abcdef"), np.array([1, 3, 2, 4, 5, 9]), rows
    )
    assert selection.kept == ["b", "e", "f", "d"]
    assert list(selection.rejected) == [
        Rejection("c", "below_budget"),
        Rejection("a", "below_budget"),
    ]


@pytest.mark.parametrize("name", ["k_center", "mmr", "facility_location"])
def test_only_the_best_candidates_are_considered(name):
    rng = np.random.default_rng(4)
    rows, scores = rng.standard_normal((40, 6)).astype(np.float16), rng.permutation(40)
    rows[scores == 39] = 0  # the best row cannot be compared
    rows[scores == 0] = 0  # nor can the last, which nobody looks at
    selection = load_selector(name, budget=40, candidates=10).select(names(40), scores, rows)
    best = {names(40)[i] for i in np.argsort(-scores)[1:10]}
    assert set(selection.kept) == best
    assert [
        rejection.id for rejection in selection.rejected if rejection.reason == "unscorable"
    ] == [names(40)[int(scores.argmax())]]
    for budget in (1, 4):
        assert (
            load_selector(name, budget=budget, candidates=10).select(names(40), scores, rows).kept
            == selection.kept[:budget]
        )


@pytest.mark.parametrize("name", ["k_center", "mmr", "facility_location"])
def test_empty_pools_one_row_and_copies(name):
    selector = load_selector(name, budget=3)
    assert selector.select([], np.empty(0), np.empty((0, 2), np.float32)).kept == []
    assert selector.select(["a"], np.ones(1), np.ones((1, 2), np.float32)).kept == ["a"]
    assert selector.select(
        list("dcba"), np.array([1, 1, 1, 2]), np.ones((4, 2), np.float32)
    ).kept == ["a", "b", "c"]
