"""Every statement on how far a row was is tried by selecting anew."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.artifacts.ledger import SCHEMA, build_ledger
from deita_tasks.decisions import ledger_rows
from deita_tasks.results.how_far import how_far
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.base import Selector

NUMBER = r"([\d,.e+-]*\d)"


def ledger_of(strategy: Selector, ids, scores, rows, hidden=()) -> pa.Table:  # type: ignore[no-untyped-def]
    """The ledger of a selection. hidden: rows below the budget whose scores are not computed."""
    result = strategy.select(ids, scores, rows)
    n = len(ids)
    pool = pa.table(
        {"id": ids, "source_uri": ["pool.jsonl"] * n, "source_row": pa.array(range(1, n + 1))}
    )
    below = {one.id for one in result.rejected if one.reason == "below_budget"}
    known = np.array([id not in below or id not in hidden for id in ids], bool)
    scores_table = pa.table(
        {
            "id": ids,
            "complexity": pa.nulls(n, pa.list_(pa.float32())),
            "quality": pa.nulls(n, pa.list_(pa.float32())),
            "scores": pa.nulls(n, SCHEMA.field("scores").type),
            "evol_score": pa.array(np.where(known, scores, np.nan)),
            "evol_lower": pa.array(np.where(known, scores, scores - 1)),
            "evol_upper": pa.array(np.where(known, scores, scores + 1)),
            "truncated": [False] * n,
            "problem": pa.nulls(n, pa.string()),
        }
    )
    quarantine = pa.table(
        {
            name: pa.array([], SCHEMA.field(name).type)
            for name in ("source_uri", "source_row", "reason")
        }
    )
    quarantine = quarantine.append_column("detail", pa.array([], pa.string()))
    ledger, _ = build_ledger(pool, quarantine, scores_table, result)
    return ledger


def sentences(strategy: Selector, ledger: pa.Table):  # type: ignore[no-untyped-def]
    rows = ledger_rows(ledger)
    selected = [row for row in rows if row.decision == "selected"]
    last = min(selected, key=lambda row: row.evol_score or 0.0, default=None)
    for row in rows:
        for sentence in how_far(ledger, row, strategy.fingerprint(), last):
            yield row, sentence, last


def decision(strategy: Selector, row_id: str, pool) -> str:  # type: ignore[no-untyped-def]
    result = strategy.select(*pool)
    reasons = {rejection.id: rejection.reason for rejection in result.rejected}
    return reasons.get(row_id, "selected")


@st.composite
def pools(draw):  # type: ignore[no-untyped-def]
    n, d = draw(st.integers(1, 25)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = rng.standard_normal((n, d)).astype(np.float32)
    scores = rng.integers(4, 20, n) / 2
    return [f"id{i}" for i in rng.permutation(n)], scores, rows


@settings(max_examples=60, deadline=None)
@given(pools(), st.integers(1, 12), st.booleans())
def test_budgets(pool, budget: int, is_lazy: bool) -> None:  # type: ignore[no-untyped-def]
    """With the budget named a row comes in; with one less it does not, unless bounds are wide."""
    ids, scores, rows = pool
    strategy = load_selector("top_score", budget=budget)
    hidden = ids[::2] if is_lazy else []
    ledger = ledger_of(strategy, ids, scores, rows, hidden)
    for row, sentence, last in sentences(strategy, ledger):
        if found := re.match(rf"it comes in with a budget of {NUMBER}", sentence):
            enough = int(found[1])
            assert decision(load_selector("top_score", budget=enough), row.id, pool) == "selected"
            if "at the latest" not in sentence:
                fewer = load_selector("top_score", budget=enough - 1)
                assert decision(fewer, row.id, pool) == "below_budget"
        else:
            found = re.match(rf"its evol score is (at least )?{NUMBER} below", sentence)
            assert found is not None
            gap = last.evol_score - scores[ids.index(row.id)]
            wide = 1 if found[1] else 0
            assert float(found[2]) == round(gap - wide, 2)


@settings(max_examples=60, deadline=None)
@given(pools(), st.integers(1, 12), st.booleans(), st.sampled_from([0.3, 0.7, 0.9]))
def test_turns(pool, budget: int, is_lazy: bool, limit: float) -> None:  # type: ignore[no-untyped-def]
    """With the budget named, the turn of a row comes: it is not below the budget."""
    ids, scores, rows = pool
    strategy = load_selector("diverse", budget=budget, max_similarity=limit)
    ledger = ledger_of(strategy, ids, scores, rows, ids[::2] if is_lazy else [])
    for row, sentence, _ in sentences(strategy, ledger):
        if found := re.match(rf"its turn comes with a budget of {NUMBER}", sentence):
            larger = load_selector("diverse", budget=int(found[1]), max_similarity=limit)
            assert decision(larger, row.id, pool) in ("selected", "too_similar")


@settings(max_examples=100, deadline=None)
@given(pools(), st.integers(1, 12), st.sampled_from(["cosine", "euclidean", "dot"]))
def test_limits(pool, budget: int, metric: str) -> None:  # type: ignore[no-untyped-def]
    """A row comes in with the limit named, and with others as far as they are said to do."""
    ids, scores, rows = pool
    option, limit = ("min_distance", 1.5) if metric == "euclidean" else ("max_similarity", 0.4)
    strategy = load_selector("diverse", budget=budget, metric=metric, **{option: limit})
    ledger = ledger_of(strategy, ids, scores, rows)
    for row, sentence, _ in sentences(strategy, ledger):
        found = re.match(
            rf"it comes in with a limit of {NUMBER}(?: or (?:more|less))?"
            rf"(?:, as long as it is (?:below|above) {NUMBER})?$",
            sentence,
        )
        if found is None:
            assert row.decision != "too_similar" or "the limit" in sentence
            continue
        tried = [float(found[1])]
        if found[2]:
            tried.append((3 * tried[0] + float(found[2])) / 4)
            tried.append(float(np.nextafter(np.float32(found[2]), np.float32(found[1]))))
        elif metric == "cosine":
            tried += [max(tried[0], 0.99), 1.0]
        elif metric == "euclidean":
            tried += [tried[0] / 2, 0.0]
        else:
            tried += [tried[0] + 1, 1e6]
        for value in tried:
            other = load_selector("diverse", budget=budget, metric=metric, **{option: value})
            assert decision(other, row.id, pool) == "selected"


def test_by_hand() -> None:
    """Limit 0.9, budget 2. a is kept; b is at 18.19 degrees (0.95) and c at 14.07 (0.97) to it; d
    is kept; e and f are below the budget.
    """
    angles = np.radians([0, 18.19, 14.07, 90, 180, 270])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    scores = np.array([9.0, 8.0, 7.0, 6.0, 5.5, 5.0])
    strategy = load_selector("diverse", budget=2, max_similarity=0.9)
    ledger = ledger_of(strategy, list("abcdef"), scores, rows)
    said: dict[str, list[str]] = {}
    for row, sentence, _ in sentences(strategy, ledger):
        said.setdefault(row.id, []).append(sentence)
    assert list(said) == ["b", "c", "e", "f"]
    assert said["b"][0] == "its similarity is 0.05 above the limit"
    assert re.fullmatch(r"it comes in with a limit of 0\.950\d* or more", said["b"][1])
    assert said["c"] == ["its similarity is 0.07 above the limit"]  # a limit of 0.97 lets in b
    assert said["e"][0] == "its evol score is 0.50 below that of the last one selected"
    assert said["e"][1].startswith("its turn comes with a budget of 3 at the latest; ")
    assert said["f"][1].startswith("its turn comes with a budget of 4 at the latest; ")
