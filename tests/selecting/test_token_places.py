"""A budget in tokens that strata divide: parts, ends, and what is left."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.errors import UsageError
from deita_tasks.presets import EVERY_ROW
from deita_tasks.selecting import SELECTORS, load_selector
from deita_tasks.selecting.mix import parse_mix
from deita_tasks.selecting.reference import Reference
from deita_tasks.selecting.strata import Sizes, Strata
from tests.support.selection_pools import pools

EXACT = ["t=a:0.5,*:0.5", "t=a:0.3,b:0.3,*:0.4"]
MIXES = [*EXACT, "t=a:..9", "t=a:4..,b:..8"]
LIMITED = ["relevance"]  # no target looks at a row, so that its stratum never ends


def sizes(tokens: list[int], budget: int) -> Sizes:
    return Sizes(np.array(tokens, np.int64), budget)


def top(rows: list[tuple[str, int]], mix: str, budget: int) -> tuple[str, list[str]]:
    """Select from rows in this order, (stratum, tokens) each; return the numbers of those kept."""
    ids = [f"{number}" for number in range(len(rows))]
    labels = [label for label, _ in rows]
    strategy = load_selector("top_score", budget=EVERY_ROW, mix=mix)
    strata = strategy.divide(labels, sizes([count for _, count in rows], budget))
    result = strategy.select(ids, np.arange(len(rows), 0, -1.0), None, strata)
    reasons = [f"{rejection.id} {rejection.reason}" for rejection in result.rejected]
    return "".join(result.kept), reasons


def test_each_stratum_ends_before_the_first_row_that_does_not_fit() -> None:
    """Of 20 tokens each gets 10. In a, 6 + 5 is too much, and the 1 after it is not taken."""
    rows = [("a", 6), ("b", 4), ("a", 5), ("b", 6), ("a", 1), ("b", 1)]
    kept, reasons = top(rows, "t=a:0.5,b:0.5", 20)
    assert kept == "013"
    assert reasons == ["2 stratum_full", "4 stratum_full", "5 stratum_full"]


def test_a_dry_stratum_leaves_its_tokens_to_the_others() -> None:
    """a has 2 tokens of its 10, so b gets 18."""
    rows = [("a", 2), ("b", 9), ("b", 9), ("b", 1)]
    kept, reasons = top(rows, "t=a:0.5,b:0.5", 20)
    assert kept == "012"
    assert reasons == ["3 stratum_full"]


def test_largest_remainder_of_tokens() -> None:
    """10 tokens in thirds: 3.3 each, and the one that is left to the first name."""
    rows = [(name, 1) for name in "abc" * 5]
    strata = parse_mix("t=a:0.25,b:0.25,*:0.5").divide(
        [name for name, _ in rows], 0, sizes([1] * 15, 10)
    )
    assert strata.minimum.tolist() == strata.maximum.tolist() == [3, 2, 5]


def test_the_budget_itself_ends_what_no_minimum_reserves() -> None:
    """With maxima alone, the first row that does not fit ends the whole selection."""
    rows = [("a", 5), ("b", 3), ("a", 4), ("b", 1)]
    kept, reasons = top(rows, "t=a:..9", 10)
    assert kept == "01"
    assert reasons == ["2 below_budget", "3 below_budget"]


def test_reserved_tokens_are_not_taken_by_others() -> None:
    """5 of 10 are reserved for b: the second row of a would take one, so what is shared ends."""
    rows = [("a", 4), ("a", 2), ("b", 5), ("b", 1)]
    kept, reasons = top(rows, "t=b:5..", 10)
    assert kept == "02"
    assert reasons == ["1 stratum_full", "3 stratum_full"]


def test_amounts_that_do_not_fit_name_tokens() -> None:
    with pytest.raises(UsageError, match="add up to 30 tokens, more than the budget of 20"):
        parse_mix("t=a:30").divide(["a"], 0, sizes([1], 20))


def reference_for(pool: Any) -> Reference:
    ids, _, rows = pool
    vectors = np.random.default_rng(1).standard_normal((2, rows.shape[1]))
    return Reference(["x", "y"], vectors, {row_id: ["x", "y"] for row_id in ids})


def divided(strategy: Any, labels: list[str], of_rows: Sizes) -> Strata | None:
    try:
        return strategy.divide(labels, of_rows)  # type: ignore[no-any-return]
    except UsageError:
        return None  # no row has one of the values


@pytest.mark.parametrize("name", SELECTORS)
@given(
    pools(),
    st.sampled_from(MIXES),
    st.integers(9, 60),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_the_budget_is_never_exceeded(
    name: str, pool: Any, mix: str, budget: int, random: Any
) -> None:
    """Nor a maximum; and the row that ended a stratum did not fit, by a walk of its own."""
    ids, scores, rows = pool
    labels = [random.choice("abc") for _ in ids]
    tokens = [random.randint(1, 9) for _ in ids]
    strategy = load_selector(name, budget=EVERY_ROW, mix=mix).with_reference(reference_for(pool))
    strata = divided(strategy, labels, sizes(tokens, budget))
    if strata is None:
        return
    result = strategy.select(ids, scores, rows, strata)
    spent: Counter[int] = Counter()
    for row_id in result.kept:
        spent[int(strata.codes[ids.index(row_id)])] += tokens[ids.index(row_id)]
    assert sum(spent.values()) <= budget
    assert all(count <= strata.maximum[code] for code, count in spent.items())
    if mix not in EXACT:
        return
    waiting: dict[int, list[str]] = {}
    for rejection in result.rejected:
        code = int(strata.codes[ids.index(rejection.id)])
        is_all = strata.maximum[code] == budget  # the others have no rows
        assert rejection.reason != "below_budget" or is_all or name in LIMITED
        if rejection.reason == "stratum_full":
            waiting.setdefault(code, []).append(rejection.id)
    for code, left_out in waiting.items():
        left = int(strata.maximum[code]) - spent[code]
        sizes_left = [tokens[ids.index(row_id)] for row_id in left_out]
        assert max(sizes_left) > left
        if name in ("top_score", "diverse"):
            first = min(left_out, key=lambda row_id: (-scores[ids.index(row_id)], row_id))
            assert tokens[ids.index(first)] > left


@given(pools(), st.integers(9, 40), st.integers(0, 20), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_selections_nest_where_limits_do(pool: Any, budget: int, more: int, random: Any) -> None:
    """With maxima in tokens a smaller budget selects the beginning of what a larger one does."""
    ids, scores, rows = pool
    labels = [random.choice("abc") for _ in ids]
    tokens = [random.randint(1, 9) for _ in ids]
    strategy = load_selector("diverse", budget=EVERY_ROW, mix="t=a:..9")
    kept = []
    for tokens_in_all in (budget, budget + more):
        strata = divided(strategy, labels, sizes(tokens, tokens_in_all))
        if strata is None:
            return
        kept.append(list(strategy.select(ids, scores, rows, strata).kept))
    assert kept[1][: len(kept[0])] == kept[0]
