"""What changed between two selections, on ledgers written out by hand."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from deita_tasks.artifacts.ledger import SCHEMA
from deita_tasks.reporting.changes import Changes, compare


def ledger(*rows: tuple[Any, ...]) -> pa.Table:
    """(id, decision, score of its turns, id of the row that blocked it); evol score is the sum of
    squares, rank the place.
    """
    made = [
        {
            "id": id,
            "source_uri": "pool.jsonl",
            "source_row": place,
            "complexity": scores,
            "quality": scores,
            "evol_score": None if scores is None else float(sum(score * score for score in scores)),
            "rank": place,
            "decision": decision,
            "nearest_id": nearest,
            "similarity": 0.95 if nearest else None,
        }
        for place, (id, decision, scores, nearest) in enumerate(rows, 1)
    ]
    return pa.Table.from_pylist(made, schema=SCHEMA)


def changed(
    before: pa.Table, after: pa.Table, budgets: tuple[int, int] = (2, 2), other: Any = None
) -> Changes:
    asked = [
        {"selection": {"strategy": "diverse", "budget": budget}, "complexity": {"backend": "x"}}
        for budget in budgets
    ]
    if other:
        asked[1] |= other
    return compare("the-one-before", before, after, (asked[0], asked[1]))


BEFORE = ledger(
    ("a", "selected", [3.0], None),
    ("b", "selected", [2.0], None),
    ("c", "too_similar", [2.0], "b"),
    ("d", "below_budget", [1.0], None),
    ("a", "duplicate", [3.0], None),
    (None, "quarantined", None, None),
)


def rows_of(changes: Changes) -> list[tuple[Any, ...]]:
    return [tuple(row.values())[:6] for row in changes.table.to_pylist()]


def test_the_same_again_changes_nothing() -> None:
    found = changed(BEFORE, BEFORE)
    assert (
        found.pool_added,
        found.pool_removed,
        found.added,
        found.dropped,
        found.table.num_rows,
    ) == (0, 0, 0, 0, 0)
    assert found.settings == []
    assert found.reasons() == []
    assert [one.shift for one in found.drift] == [None, None, None]


def test_a_new_and_better_row_takes_the_place_of_the_last() -> None:
    after = ledger(
        ("e", "selected", [4.0, 2.0], None),
        ("a", "selected", [3.0], None),
        ("b", "below_budget", [2.0], None),
        ("c", "below_budget", [2.0], None),
        ("d", "below_budget", [1.0], None),
    )
    found = changed(BEFORE, after)
    assert (found.pool_added, found.pool_removed) == (1, 0)
    assert rows_of(found) == [
        ("e", "added", "new in the pool", None, "selected", None),
        (
            "b",
            "dropped",
            "others come before it, and the budget is full",
            "selected",
            "below_budget",
            None,
        ),
    ]
    complexity, _, evol = found.drift
    assert (complexity.old_mean, complexity.new_mean, complexity.shift) == (
        2.0,
        3.0,
        1.0,
    )  # turn by turn
    assert (evol.old_rows, evol.old_mean, evol.old_median) == (4, 4.5, 4.0)
    assert (evol.new_rows, evol.new_mean) == (1, 20.0)


def test_a_smaller_budget_alone_leaves_a_row_out() -> None:
    """No other row came in, so none is better than it was."""
    a, b = ("a", "selected", [3.0], None), ("b", "below_budget", [2.0], None)
    fewer = changed(BEFORE, ledger(a, b), budgets=(2, 1))
    assert [row[2] for row in rows_of(fewer)] == ["the budget is smaller"]
    new = ("e", "selected", [4.0], None)
    both = changed(BEFORE, ledger(new, a, b), budgets=(3, 2))
    assert [row[2] for row in rows_of(both) if row[0] == "b"] == [
        "the budget is smaller, and others come before it"
    ]


def test_a_stratum_that_is_full() -> None:
    before = ledger(("a", "selected", [3.0], None), ("b", "stratum_full", [2.0], None))
    after = ledger(("a", "stratum_full", [1.0], None), ("b", "selected", [2.0], None))
    assert [row[2] for row in rows_of(changed(before, after))] == [
        "its stratum has room for it now",
        "others come before it, and its stratum is full",
    ]


def test_drift_is_measured_over_samples_where_only_some_rows_are_scored() -> None:
    after = ledger(
        ("a", "selected", [3.0], None),
        ("b", "below_budget", None, None),
        ("e", "selected", [6.0], None),
        ("f", "below_budget", None, None),
    )
    of_pool = ledger(("a", "selected", [3.0], None), ("d", "selected", [1.0], None))
    new = ledger(("e", "selected", [6.0], None), ("f", "below_budget", [2.0], None))
    fingerprints = ({"selection": {"budget": 2}}, {"selection": {"budget": 2}})
    complexity, _, evol = compare("before", BEFORE, after, fingerprints, (of_pool, new)).drift
    assert (complexity.old_rows, complexity.old_mean) == (2, 2.0)
    assert (complexity.new_rows, complexity.new_mean, complexity.shift) == (2, 4.0, 2.0)
    assert (evol.old_mean, evol.new_mean) == (5.0, 20.0)


def test_a_new_row_blocks_an_old_one_and_frees_another() -> None:
    after = ledger(
        ("e", "selected", [4.0], None),
        ("b", "too_similar", [2.0], "e"),
        ("c", "selected", [2.0], None),
        ("d", "below_budget", [1.0], None),
    )
    found = changed(BEFORE, after)
    assert rows_of(found) == [
        ("e", "added", "new in the pool", None, "selected", None),
        (
            "c",
            "added",
            "no selected row is too similar to it any more",
            "too_similar",
            "selected",
            "b",
        ),
        ("a", "dropped", "no longer in the pool", "selected", None, None),
        (
            "b",
            "dropped",
            "too similar to a new selected conversation",
            "selected",
            "too_similar",
            "e",
        ),
    ]
    assert found.pool_removed == 1
    assert found.summary()["why"][0] == {
        "change": "added",
        "why": "new in the pool",
        "conversations": 1,
    }


def test_a_larger_budget_is_said_and_is_the_reason() -> None:
    after = ledger(
        *[(row["id"], "selected", [2.0], None) for row in BEFORE.to_pylist()[:2]],
        ("d", "selected", [1.0], None),
    )
    found = changed(BEFORE, after, budgets=(2, 3))
    assert found.budget == (2, 3)
    assert found.settings == []  # the budget is told by itself
    assert rows_of(found) == [
        ("d", "added", "the budget is larger", "below_budget", "selected", None)
    ]


def test_other_settings_are_named() -> None:
    other = {"complexity": {"backend": "y"}, "selection": {"strategy": "random", "budget": 2}}
    assert changed(BEFORE, BEFORE, other=other).settings == ["complexity", "selection"]


def test_new_rows_without_a_score_are_not_averaged() -> None:
    found = changed(BEFORE, pa.concat_tables([BEFORE, ledger(("e", "unscorable", None, None))]))
    assert found.pool_added == 1
    assert [(one.new_rows, one.shift) for one in found.drift] == [(0, None)] * 3
    json.dumps(found.summary(), allow_nan=False)


@pytest.mark.parametrize("empty", [ledger(), ledger((None, "quarantined", None, None))])
def test_from_nothing_and_to_nothing(empty: pa.Table) -> None:
    assert changed(empty, BEFORE).added == 2
    assert changed(BEFORE, empty).dropped == 2
    assert changed(empty, empty).summary()["drift"][0]["new"] == {
        "rows": 0,
        "mean": None,
        "median": None,
    }
