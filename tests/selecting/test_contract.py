"""What every strategy must do, checked for every name in SELECTORS.

The example in Selector's docstring is held to the same contract.
"""

import inspect
import json
import textwrap
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from deita_tasks.errors import UsageError
from deita_tasks.records import Rejection
from deita_tasks.selecting import SELECTORS, load_selector
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.reference import Reference
from tests.support.selection_pools import pools, row_ids

EXAMPLE = "the example in Selector's docstring"
every_strategy = pytest.mark.parametrize("name", [*SELECTORS, EXAMPLE])
every_registered_strategy = pytest.mark.parametrize("name", SELECTORS)
contract = settings(max_examples=30, deadline=None)


def example_class():
    """The class that the docstring of Selector shows."""
    lines = inspect.getdoc(Selector).splitlines()
    first = lines.index("    class EveryNth(Selector):")
    last = lines.index("            return pool.result()")
    source = textwrap.dedent("\n".join(lines[first : last + 1]))
    namespace = {"Selector": Selector, "ClassVar": ClassVar, "Field": Field, "np": np}
    exec(source, namespace)
    return namespace["EveryNth"]


def load(name, budget, **options):
    if name == EXAMPLE:
        return example_class()(budget=budget, **options)
    return load_selector(name, budget=budget, **options)


def reference_for(pool):
    """Three references of the width of the pool's vectors, and tags for its rows."""
    ids, _, rows = pool
    width = 1 if rows is None else rows.shape[1]
    vectors = np.random.default_rng(1).standard_normal((3, width))
    tags = {row_id: list("xyz"[: 1 + len(row_id) % 3]) for row_id in ids}
    return Reference(["z", "x", "y"], vectors, tags)


def select(name, pool, budget, strata=None, **options):
    ids, scores, rows = pool
    strategy = load(name, budget, **options).with_reference(reference_for(pool))
    result = strategy.select(ids, scores, rows, strata)
    return list(result.kept), list(result.rejected)


def usable(pool):
    """The ids of rows with a finite score and a vector that can be compared."""
    ids, scores, rows = pool
    wide = rows.astype(np.float64)
    comparable = np.isfinite(wide).all(axis=1) & wide.any(axis=1)
    has_score = np.isfinite(scores)
    return {ids[i] for i in np.flatnonzero(has_score & comparable)}


@every_strategy
@given(pools(), st.integers(1, 30))
@contract
def test_every_id_is_decided_once_and_the_budget_holds(name, pool, budget):
    kept, rejected = select(name, pool, budget)
    assert sorted([*kept, *(rejection.id for rejection in rejected)]) == sorted(pool[0])
    assert len(kept) <= budget


@every_strategy
@given(pools(), st.integers(1, 30), st.randoms(use_true_random=False))
@contract
def test_the_input_order_does_not_matter(name, pool, budget, random):
    ids, scores, rows = pool
    order = list(range(len(ids)))
    random.shuffle(order)
    shuffled = [ids[i] for i in order], scores[order], rows[order]
    assert select(name, shuffled, budget) == select(name, pool, budget)


@every_strategy
@given(pools(), st.integers(1, 24), st.integers(1, 24))
@contract
def test_budgets_nest(name, pool, smaller, larger):
    smaller, larger = sorted((smaller, larger))
    assert select(name, pool, smaller)[0] == select(name, pool, larger)[0][:smaller]


@every_strategy
@given(pools(), st.integers(1, 30))
@contract
def test_rows_without_a_score_are_unscorable_and_nothing_is_imputed(name, pool, budget):
    ids, scores, _ = pool
    kept, rejected = select(name, pool, budget)
    unscorable = {rejection.id for rejection in rejected if rejection.reason == "unscorable"}
    without_score = {ids[i] for i in np.flatnonzero(~np.isfinite(scores))}
    assert without_score <= unscorable
    if load(name, 1).needs_embeddings:
        assert set(kept) <= usable(pool)
        assert not unscorable & usable(pool)
    else:
        assert unscorable == without_score


@every_strategy
@given(pools(), st.integers(1, 30))
@contract
def test_a_rejection_names_a_kept_row_only_if_it_is_too_similar(name, pool, budget):
    kept, rejected = select(name, pool, budget)
    for rejection in rejected:
        if rejection.reason == "too_similar":
            assert rejection.nearest_id in kept
            assert np.isfinite(rejection.similarity)
        else:
            assert rejection[:3] == Rejection(rejection.id, rejection.reason)[:3]
            assert np.isnan(rejection.similarity)


@every_strategy
@given(pools(), st.integers(1, 30), st.integers(1, 3), st.randoms(use_true_random=False))
@contract
def test_no_stratum_gets_more_than_its_rows(name, pool, budget, per_stratum, random):
    ids = pool[0]
    strata = [random.choice(["a", "b", None]) for _ in ids]
    stratum_of = dict(zip(ids, strata, strict=True))
    kept, rejected = select(name, pool, budget, strata, per_stratum=per_stratum)
    counts = [sum(stratum_of[row_id] == stratum for row_id in kept) for stratum in set(strata)]
    assert all(count <= per_stratum for count in counts)
    assert len(kept) + len(rejected) == len(ids)


@every_strategy
def test_strata_must_match_the_ids(name):
    pool = ["a", "b"], np.ones(2), np.eye(2)
    with pytest.raises(UsageError, match="no strata for 2 ids: per_stratum needs the stratum"):
        select(name, pool, 2, per_stratum=1, strata=None)
    with pytest.raises(UsageError, match="1 strata for 2 ids"):
        select(name, pool, 2, per_stratum=1, strata=["x"])


@every_strategy
def test_an_empty_pool_and_one_row(name):
    assert select(name, ([], np.empty(0), np.empty((0, 4), np.float32)), 3) == ([], [])
    assert select(name, (["a"], np.ones(1), np.ones((1, 2), np.float32)), 3) == (["a"], [])


@every_strategy
def test_the_input_is_not_changed(name):
    rng = np.random.default_rng(0)
    ids, scores, rows = row_ids(40), rng.random(40), rng.standard_normal((40, 5))
    copies = list(ids), scores.copy(), rows.copy()
    select(name, (ids, scores, rows), 9)
    assert ids == copies[0]
    assert np.array_equal(scores, copies[1])
    assert np.array_equal(rows, copies[2])


@every_strategy
def test_vectors_are_required_only_if_the_strategy_says_so(name):
    pool = ["a", "b"], np.array([1, 2]), None
    if load(name, 1).needs_embeddings:
        with pytest.raises(UsageError, match="embeddings are missing"):
            select(name, pool, 2)
    else:
        assert len(select(name, pool, 2)[0]) >= 1


@every_strategy
def test_the_fingerprint_is_json_and_stable(name):
    fingerprint = load(name, 5).fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint == load(name, 5).fingerprint()
    assert fingerprint != load(name, 6).fingerprint()
    assert fingerprint != load(name, 5, per_stratum=3).fingerprint()
    assert fingerprint["strategy"] == type(load(name, 5)).__name__


@every_strategy
def test_ids_and_scores_that_do_not_match_are_refused(name):
    rows = np.eye(2)
    with pytest.raises(UsageError, match=r"id 'a' occurs more than once: expected distinct ids"):
        select(name, (["a", "a"], np.ones(2), rows), 1)
    with pytest.raises(UsageError, match="not numbers"):
        select(name, (["a", "b"], ["one", "two"], rows), 1)
    for scores in ([1, 2, 3], [[1], [2]]):
        with pytest.raises(UsageError, match=r"evol_scores of shape \(.*\) for 2 ids"):
            select(name, (["a", "b"], scores, rows), 1)


@every_registered_strategy
def test_wrong_options_are_refused(name):
    with pytest.raises(UsageError, match=f"strategy '{name}': option 'budget' is required"):
        load_selector(name)
    with pytest.raises(UsageError, match="budget: 0 arrived"):
        load_selector(name, budget=0)
    with pytest.raises(UsageError, match="per_stratum: 0 arrived"):
        load_selector(name, budget=1, per_stratum=0)
    with pytest.raises(UsageError, match="unknown option 'treshold'"):
        load_selector(name, budget=1, treshold=0.9)


def test_unknown_strategies_are_named():
    with pytest.raises(UsageError, match=r"unknown strategy 'diverze'.*did you mean 'diverse'"):
        load_selector("diverze", budget=1)
