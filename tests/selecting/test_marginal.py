"""k_center and mmr against their definitions, one row at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.selecting import facility_location, load_selector, marginal
from tests.support.selection_pools import pools, row_ids
from tests.support.selection_reference import similarity, unit


@pytest.fixture(autouse=True)
def small_updates(monkeypatch):
    """So that a pool of twenty rows goes through full and partial updates."""
    monkeypatch.setattr(marginal, "PICKS_PER_FULL_UPDATE", 3)
    monkeypatch.setattr(marginal, "UPDATE_ROWS", 2)
    monkeypatch.setattr(facility_location, "BLOCK_ROWS", 4)


def usable_positions(ids, scores, rows):
    """Positions of the usable rows, best first."""
    finite = [i for i in range(len(ids)) if np.isfinite(scores[i])]
    best_first = sorted(finite, key=lambda i: (-scores[i], ids[i]))
    return [i for i in best_first if unit(rows[i])]


def scale(scores):
    lowest, highest = min(scores.values(), default=0), max(scores.values(), default=0)
    spread = highest - lowest
    return {i: (score - lowest) / spread if spread else 0.0 for i, score in scores.items()}


def marginal_order(ids, scores, rows, budget, weight, strata=None, per_stratum=99):
    candidates = usable_positions(ids, scores, rows)
    units = {i: unit(rows[i]) for i in candidates}
    relevance = scale({i: scores[i] for i in candidates})
    kept = []

    def value(i):
        similarities = [float(similarity(units[i], units[k])) for k in kept]
        return weight * relevance[i] - (1 - weight) * max(similarities, default=0)

    def has_room(i):
        return strata is None or [strata[k] for k in kept].count(strata[i]) < per_stratum

    while candidates and len(kept) < budget:
        pick = max(candidates, key=value)  # the first of several, so the best ranked
        kept.append(pick)
        candidates = [i for i in candidates if i != pick and has_room(i)]
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
    selectors = [load_selector("mmr", budget=budget, weight=weight)]
    if weight == 0:
        selectors.append(load_selector("k_center", budget=budget))
    usable_ids = {ids[i] for i in usable_positions(ids, scores, rows)}
    for selector in selectors:
        selection = selector.select([ids[i] for i in order], scores[order], rows[order])
        assert selection.kept == marginal_order(ids, scores, rows, budget, weight)
        reasons = {rejection.id: rejection.reason for rejection in selection.rejected}
        unscorable = {row_id for row_id, reason in reasons.items() if reason == "unscorable"}
        assert unscorable == set(ids) - usable_ids
        assert set(reasons.values()) <= {"below_budget", "unscorable"}
        assert sorted([*selection.kept, *reasons]) == sorted(ids)


@given(pools(), st.integers(1, 3), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_strata(pool, per_stratum, random):
    ids, scores, rows = pool
    strata = [random.choice("ab") for _ in ids]
    mmr = load_selector("mmr", budget=9, per_stratum=per_stratum)
    expected = marginal_order(ids, scores, rows, 9, 0.5, strata, per_stratum)
    assert mmr.select(ids, scores, rows, strata).kept == expected
    locator = load_selector("facility_location", budget=30, per_stratum=per_stratum)
    kept = locator.select(ids, scores, rows, strata).kept
    stratum_of = dict(zip(ids, strata, strict=True))
    usable_ids = [ids[i] for i in usable_positions(ids, scores, rows)]
    for stratum in "ab":
        available = sum(stratum_of[row_id] == stratum for row_id in usable_ids)
        kept_count = sum(stratum_of[row_id] == stratum for row_id in kept)
        assert kept_count == min(per_stratum, available)


def test_mmr_of_weight_1_is_top_score_and_of_0_k_center():
    rng = np.random.default_rng(0)
    rows, scores = rng.standard_normal((300, 12)).astype(np.float32), rng.random(300)

    def kept(name, **options):
        return load_selector(name, budget=120, **options).select(row_ids(300), scores, rows).kept

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
    selector = load_selector("k_center", budget=4)
    assert selector.select(list("abcd"), np.array([4, 3, 2, 1]), rows).kept == list("acdb")


@pytest.mark.parametrize("name", ["k_center", "mmr", "facility_location"])
def test_only_the_best_candidates_are_considered(name):
    rng = np.random.default_rng(4)
    ids = row_ids(40)
    rows, scores = rng.standard_normal((40, 6)).astype(np.float16), rng.permutation(40)
    rows[scores == 39] = 0  # the best row cannot be compared
    rows[scores == 0] = 0  # nor can the last, which is not looked at
    selection = load_selector(name, budget=40, candidates=10).select(ids, scores, rows)
    assert set(selection.kept) == {ids[i] for i in np.argsort(-scores)[1:10]}
    rejected = selection.rejected
    unscorable = [rejection.id for rejection in rejected if rejection.reason == "unscorable"]
    assert unscorable == [ids[int(scores.argmax())]]
    for budget in (1, 4):
        smaller = load_selector(name, budget=budget, candidates=10).select(ids, scores, rows)
        assert smaller.kept == selection.kept[:budget]


@pytest.mark.parametrize("name", ["k_center", "mmr", "facility_location"])
def test_of_copies_the_best_ranked_are_kept(name):
    scores, rows = np.array([1, 1, 1, 2]), np.ones((4, 2), np.float32)
    selection = load_selector(name, budget=3).select(list("dcba"), scores, rows)
    assert selection.kept == ["a", "b", "c"]
