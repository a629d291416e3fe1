"""SemDeDup, and the clusters that it and strata rest on."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.selecting import load_selector
from deita_tasks.selecting.clusters import cluster_rows
from tests.support.selection_pools import pools, row_ids
from tests.support.selection_reference import similarity, unit


def test_the_better_row_of_a_pair_stays_by_hand():
    """Two clusters. c is 0.96 to a and 0.6 to b; d is 1 to b. The limit of eps = 0.1 is 0.9."""
    rows = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.96, 0.28, 0], [0, 0, 1], [0, 0.28, 0.96]])
    result = load_selector("semdedup", budget=5, eps=0.1, groups=2).select(
        list("abcde"), np.array([5, 4, 3, 2, 1]), rows
    )
    assert result.kept == ["a", "b", "d"]
    reasons = {each.id: (each.reason, each.nearest_id) for each in result.rejected}
    # c is similar to b too: 0.8 * 0.96 + 0.6 * 0.28 = 0.936, less than to a.
    assert reasons == {"c": ("too_similar", "a"), "e": ("too_similar", "d")}
    near = {each.id: each.similarity for each in result.rejected}
    np.testing.assert_allclose([near["c"], near["e"]], [0.96, 0.96], rtol=1e-6)


def test_rows_of_different_clusters_are_not_compared():
    """One cluster a row: even copies of a direction stay, unless k-means joins them."""
    rows = np.array([[1, 0], [1, 0.3], [0, 1], [0.3, 1]])
    scores = np.array([4, 3, 2, 1])
    strict = load_selector("semdedup", budget=4, eps=0.5, groups=4)
    assert strict.select(list("abcd"), scores, rows).kept == list("abcd")
    loose = load_selector("semdedup", budget=4, eps=0.5, groups=2)
    assert loose.select(list("abcd"), scores, rows).kept == ["a", "c"]


@given(pools(), st.integers(1, 20), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_it_is_the_sequential_rule_within_each_cluster(pool, budget, eps, groups):
    ids, scores, rows = pool
    clusters = cluster_rows(ids, rows, groups)
    kept = []
    order = sorted(np.flatnonzero(np.isfinite(scores)), key=lambda i: (-scores[i], ids[i]))
    for i in order:
        row = unit(rows[i])
        near = [k for k in kept if row and clusters[k] == clusters[i]]
        largest = max((similarity(row, unit(rows[k])) for k in near), default=-2)
        if row and len(kept) < budget and largest <= np.float32(1 - eps):
            kept.append(i)
    selector = load_selector("semdedup", budget=budget, eps=eps, groups=groups)
    assert selector.select(ids, scores, rows).kept == [ids[i] for i in kept]


def test_clusters_depend_neither_on_order_nor_on_length():
    random = np.random.default_rng(3)
    ids = row_ids(300)
    rows = random.standard_normal((300, 8)).astype(np.float32)
    labels = cluster_rows(ids, rows, 7)
    order = random.permutation(300)
    again = cluster_rows([ids[i] for i in order], 3 * rows[order], 7)
    assert again.tolist() == labels[order].tolist()
    assert set(labels.tolist()) == set(range(7))
    assert cluster_rows(["a"], np.array([[np.nan, 1]]), 3).tolist() == [-1]
