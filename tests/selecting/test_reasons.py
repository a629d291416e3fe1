"""The reason of every decision is true: worked out again from scores, strata and vectors."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.selecting import SELECTORS, load_selector
from deita_tasks.selecting.clusters import cluster_rows
from deita_tasks.selecting.reference import Reference
from tests.support.selection_pools import pools
from tests.support.selection_reference import similarity, unit

LIMIT = 0.8
OPTIONS = {
    "diverse": {"max_similarity": LIMIT},
    "semdedup": {"eps": 1 - LIMIT, "groups": 2},
}
# By label, as (least, most) of a budget of 8; None: as many as there is room for.
LIMITS = {
    None: {},
    "t=a:2..3,b:..4": {"a": (2, 3), "b": (0, 4)},
    "t=a:..1,*:..7": {"a": (0, 1), "others": (0, 7)},
    "t=a:4,*:4": {"a": (4, 4), "others": (4, 4)},
}
BUDGET = 8


def is_true(rejection, pool, labels, kept, name, places):
    """Whether a row was rejected for the reason given."""
    ids, scores, rows = pool
    position = ids.index(rejection.id)
    row = unit(rows[position])
    has_score = np.isfinite(scores[position])
    if rejection.reason == "unscorable":
        return not has_score or row is None
    if not has_score:
        return False
    if rejection.reason == "too_similar":
        blocker = ids.index(rejection.nearest_id)
        near = similarity(row, unit(rows[blocker]))
        is_same_group = True
        if name == "semdedup":
            clusters = cluster_rows(ids, rows, OPTIONS[name]["groups"])
            is_same_group = clusters[position] == clusters[blocker]
        is_before = (-scores[blocker], ids[blocker]) < (-scores[position], ids[position])
        is_kept = rejection.nearest_id in kept
        exceeds = near > np.float32(1 - OPTIONS[name].get("eps", 1 - LIMIT))
        return is_kept and is_before and is_same_group and exceeds and near == rejection.similarity
    is_full = places.is_full(labels[position])
    if rejection.reason == "stratum_full":
        return is_full
    return len(kept) == BUDGET and not is_full


class NaivePlaces:
    """What each label has, if the rows are kept one by one."""

    def __init__(self, kept_labels, limits):
        self._limits = limits
        self._kept = kept_labels
        self._counts = Counter(map(self._name, kept_labels))

    def _name(self, label):
        if label in self._limits or "others" not in self._limits:
            return label
        return "others"

    def _bounds(self, name):
        return self._limits.get(name, (0, BUDGET))

    def is_full(self, label):
        """At its maximum, or the places left before the budget's last were reserved for others."""
        if not self._limits:
            return False
        name = self._name(label)
        least, most = self._bounds(name)
        if self._counts[name] >= most:
            return True
        before = list(map(self._name, self._kept))
        if len(before) == BUDGET:
            before = before[:-1]  # the last row had the budget's last place
        counts = Counter(before)
        reserved = sum(max(0, self._bounds(each)[0] - counts[each]) for each in self._limits)
        return counts[name] >= least and BUDGET - len(before) <= reserved


def reference_for(pool):
    ids, _, rows = pool
    vectors = np.random.default_rng(1).standard_normal((2, rows.shape[1]))
    return Reference(["x", "y"], vectors, {row_id: ["x", "y"] for row_id in ids})


@pytest.mark.parametrize("name", SELECTORS)
@given(pools(), st.sampled_from(list(LIMITS)), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_every_reason_is_true(name, pool, mix, random):
    ids, _, _ = pool
    labels = [random.choice("abc") for _ in ids]
    limits = LIMITS[mix]
    rows = Counter(label if label in limits else "others" for label in labels)
    runs_dry = any(rows[label] < max(1, least) for label, (least, _) in limits.items())
    if runs_dry:  # then others get its places
        mix, limits = None, {}
    strategy = load_selector(name, budget=BUDGET, mix=mix, **OPTIONS.get(name, {}))
    result = strategy.with_reference(reference_for(pool)).select(*pool, labels)
    kept = list(result.kept)
    places = NaivePlaces([labels[ids.index(id)] for id in kept], limits)
    for rejection in result.rejected:
        assert is_true(rejection, pool, labels, kept, name, places), rejection
