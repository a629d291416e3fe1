"""A row inserted into a finished selection does what a second selection with it does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.selecting import load_selector
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.diverse import Diverse
from deita_tasks.selecting.insertion import FinishedWalk, Insertion

NEW = "id7x"  # stands between the ids of the pool


def finish(strategy: Selector, ids: list[str], scores: np.ndarray, rows: np.ndarray):  # type: ignore[no-untyped-def]
    """The rows that a selection reached, in any order, as a FinishedWalk."""
    result = strategy.select(ids, scores, rows)
    reached = list(result.kept)
    blockers = [-1] * len(reached)
    position = {id: number for number, id in enumerate(reached)}
    for rejection in result.rejected:
        if rejection.reason == "too_similar":
            reached.append(rejection.id)
            blockers.append(position[rejection.nearest_id])
    at = [ids.index(id) for id in reached]
    walk = FinishedWalk(
        strategy if isinstance(strategy, Diverse) else None,
        strategy.budget,
        reached,
        scores[at],
        np.array(blockers, np.int64),
        rows[at],
        all_reached=all(rejection.reason != "below_budget" for rejection in result.rejected),
    )
    return result, walk


def check_against_second_run(strategy, ids, scores, rows, score, vector) -> Insertion:  # type: ignore[no-untyped-def]
    first, walk = finish(strategy, ids, scores, rows)
    second = strategy.select([*ids, NEW], np.append(scores, score), np.vstack([rows, vector]))
    insertion: Insertion = walk.insert(NEW, score, vector)
    rejections = {rejection.id: rejection for rejection in second.rejected}
    if insertion.decision != "selected":
        assert rejections[NEW].reason == insertion.decision
        assert list(second.kept) == list(first.kept)
        if insertion.blocker is not None:
            assert insertion.blocker[:2] == rejections[NEW][2:]
            assert insertion.blocker.is_before
        return insertion
    left = [id for id in first.kept if id not in second.kept]
    assert sorted(insertion.pushed_out + insertion.cut_off) == sorted(left)
    reasons = {id: rejections[id].reason for id in left}
    assert all(reasons[id] == "too_similar" for id in insertion.pushed_out)
    assert all(reasons[id] == "below_budget" for id in insertion.cut_off)
    joined = [id for id in second.kept if id not in first.kept and id != NEW]
    known = len(insertion.let_in)
    assert joined[:known] == insertion.let_in
    assert len(joined) - known <= insertion.open_places
    return insertion


@st.composite
def cases(draw):  # type: ignore[no-untyped-def]
    """A pool in few dimensions, so that rows block each other, and a row to insert."""
    n, d = draw(st.integers(0, 40)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    whole = draw(st.booleans())
    shape = (n + 1, d)
    numbers = rng.integers(-3, 4, shape) if whole else rng.standard_normal(shape)
    rows = numbers.astype(np.float32)
    rows[~rows.any(axis=1)] = 1
    scores = rng.integers(1, 12, n + 1) / 2
    ids = [f"id{i}" for i in rng.permutation(n)]
    return ids, scores[:n], rows[:n], float(scores[n]), rows[n]


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(1, 20), st.sampled_from([-0.5, 0.3, 0.7, 0.9, 0.99, 1.0]))
def test_diverse(case, budget: int, limit: float) -> None:  # type: ignore[no-untyped-def]
    check_against_second_run(Diverse(budget=budget, max_similarity=limit, device="cpu"), *case)


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(1, 20), st.sampled_from(["euclidean", "manhattan", "dot"]))
def test_other_metrics(case, budget: int, metric: str) -> None:  # type: ignore[no-untyped-def]
    limit = {"max_similarity": 2.0} if metric == "dot" else {"min_distance": 1.5}
    check_against_second_run(Diverse(budget=budget, metric=metric, **limit), *case)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(1, 20))
def test_top_score(case, budget: int) -> None:  # type: ignore[no-untyped-def]
    insertion = check_against_second_run(load_selector("top_score", budget=budget), *case)
    assert not insertion.pushed_out and not insertion.let_in


def at(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


def test_a_chain_by_hand() -> None:
    """Rows on a circle, limit 0.9 (25.8 degrees). The new row at 10 degrees, with the best score,
    pushes out a at 20; b at 40, which only a had blocked, comes in and pushes out c at 60.
    """
    ids, scores = ["a", "b", "c", "d"], np.array([9.0, 8, 7, 6])
    rows = np.stack([at(20), at(40), at(60), at(180)])
    strategy = Diverse(budget=3, max_similarity=0.9, device="cpu")
    first, walk = finish(strategy, ids, scores, rows)
    assert list(first.kept) == ["a", "c", "d"]
    insertion = walk.insert(NEW, 10.0, at(10))
    assert insertion.decision == "selected"
    assert (insertion.pushed_out, insertion.let_in, insertion.cut_off) == (["a", "c"], ["b"], [])
    assert insertion.nearest is not None and insertion.nearest.id == "a"
    assert insertion.nearest.similarity == pytest.approx(np.cos(np.radians(10)))
    assert not insertion.nearest.is_before
    insertion = walk.insert(NEW, 6.5, at(100))
    assert (insertion.decision, insertion.cut_off) == ("selected", ["d"])
    assert walk.insert(NEW, 5, at(100)).decision == "below_budget"


def test_places_that_only_rows_not_reached_can_fill() -> None:
    """The new row pushes out a and b at 10 and -10 degrees, and nothing reached takes the place."""
    ids, scores = ["a", "b", "c"], np.array([9.0, 8, 7])
    rows = np.stack([at(20), at(-20), at(180)])
    strategy = Diverse(budget=2, max_similarity=0.9, device="cpu")
    _, walk = finish(strategy, ids, scores, rows)
    insertion = walk.insert(NEW, 10.0, at(0))
    assert (insertion.pushed_out, insertion.let_in, insertion.open_places) == (["a", "b"], [], 1)


def test_a_vector_that_cannot_be_compared() -> None:
    _, walk = finish(Diverse(budget=1, device="cpu"), ["a"], np.ones(1), at(0)[None, :])
    assert walk.insert(NEW, 10.0, np.zeros(2, np.float32)).decision == "unscorable"
