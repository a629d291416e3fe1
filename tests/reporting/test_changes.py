"""What changed between two selections, on ledgers written out by hand."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from deita_tasks.artifacts.ledger import SCHEMA
from deita_tasks.reporting.changed_rows import shown_rows, with_texts
from deita_tasks.reporting.changes import Changes, compare
from deita_tasks.reporting.drift import Drift, describe_drift
from deita_tasks.reporting.settings import describe_settings
from tests.support.report_data import conversation


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
        "no place is left in its stratum",
    ]


def test_the_reason_of_the_ledger_itself() -> None:
    """No row came before these two: there are fewer tokens, and fewer rows of the stratum."""
    after = ledger(("a", "below_budget", [3.0], None), ("b", "stratum_full", [2.0], None))
    reasons = ["the next row does not fit", "kind = x has all of its 1 rows"]
    column = after.schema.get_field_index("reason")
    after = after.set_column(column, "reason", pa.array(reasons))
    assert [row[2] for row in rows_of(changed(BEFORE, after))] == reasons


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
    assert list(map(str, found.settings)) == ["selection.budget: 2 -> 3"]
    assert rows_of(found) == [
        ("d", "added", "the budget is larger", "below_budget", "selected", None)
    ]


def test_other_settings_are_told_by_value() -> None:
    other = {
        "complexity": {"backend": "y", "server": {"base_url": "http://me:secret@host", "n": 1}},
        "quality": None,
        "selection": {"strategy": "random", "budget": 2},
        "export": {"output_format": "messages", "api_key": "sk-1"},
    }
    settings = changed(BEFORE, BEFORE, other=other).settings
    assert list(map(str, settings)) == [
        "complexity.backend: x -> y",
        "selection.strategy: diverse -> random",
        "complexity.server.base_url: none -> http://***@host",
        "complexity.server.n: none -> 1",
        "export.output_format: none -> messages",
        "export.api_key: *** -> ***",
    ]
    of_early_versions = "selection"
    assert describe_settings([settings[0]._asdict(), of_early_versions]) == [
        "complexity.backend: x -> y",
        "selection: changed",
    ]


def test_a_long_value_is_shortened_for_people_alone() -> None:
    (setting,) = changed(BEFORE, BEFORE, other={"tokens": {"files": ["x" * 100]}}).settings
    assert str(setting) == f'tokens.files: none -> ["{"x" * 78} …'
    assert setting.after == ["x" * 100]


def test_a_budget_of_all_rows_is_no_number() -> None:
    (line,) = describe_settings([{"name": "selection.budget", "before": 60, "after": 2**31 - 1}])
    assert line == "selection.budget: 60 -> all"


def test_new_settings_are_the_reason() -> None:
    before = ledger(
        ("a", "selected", [3.0], None),
        ("b", "too_similar", [2.0], "a"),
        ("c", "below_budget", [2.0], None),
    )
    after = ledger(*[(id, "selected", [3.0], None) for id in "abc"])
    limits = [{"selection": {"budget": 3, "max_similarity": limit}} for limit in (0.9, 0.96)]
    found = compare("v", before, after, (limits[0], limits[1] | {"quality": {"backend": "new"}}))
    assert [row[2] for row in rows_of(found)] == [
        "its similarity is within the new limit",
        "it ranks higher by the new settings",
    ]


def test_drift_in_words() -> None:
    """0.3 lower, by hand; a shift that two digits do not show; none without new rows."""
    after = ledger(("a", "selected", [3.0], None), ("e", "selected", [2.7], None))
    (complexity, _, evol) = changed(ledger(("a", "selected", [3.0], None)), after).drift
    assert complexity.sentence() == (
        "The mean complexity of new rows is 0.3 lower than that of the old ones (2.70 and 3.00)."
    )
    assert str(evol.sentence()).startswith("The mean evol score of new rows is 1.71 lower than")
    same = Drift("quality", 5, 2.0, 2.0, 5, 2.004, 2.0)
    assert same.sentence() == (
        "The mean quality of new rows is within 0.01 of that of the old ones, 2.00."
    )
    higher = Drift("quality", 5, 2.0, 2.0, 5, 12.0, 2.0)
    assert "is 10 higher than" in str(higher.sentence())
    assert describe_drift([drift.to_json() for drift in (same, higher)]) == [
        same.sentence(),
        higher.sentence(),
    ]
    nothing = [drift.to_json() for drift in changed(BEFORE, BEFORE).drift]
    assert describe_drift(nothing) == []


def test_the_best_ten_of_each_are_shown_with_their_texts() -> None:
    """Twelve join and twelve leave: the two worst of each are left out, and one text is gone."""
    texts = [conversation(f"u: question {number}", "a: answer", row=number) for number in range(24)]
    rows = [(text.id, [1 + number / 10]) for number, text in enumerate(texts)]
    before = ledger(*[(id, "selected", score, None) for id, score in rows[:12]])
    blocked = [(id, "too_similar", score, rows[23][0]) for id, score in rows[:12]]
    after = ledger(*[(id, "selected", score, None) for id, score in rows[12:]], *blocked)
    changes = changed(before, after)
    shown = shown_rows(changes.table)
    assert [row["id"] for row in shown] == [
        rows[number][0] for number in [*range(23, 13, -1), *range(11, 1, -1)]
    ]
    known = {text.id: text for text in texts if text is not texts[11]}
    examples = with_texts(shown, known)
    assert (examples[0].reason, examples[0].snippet) == ("new in the pool", "question 23")
    gone, left = examples[10:12]
    assert gone.snippet.startswith("(its text is gone")
    assert left.reason == (
        f"too similar to a new selected conversation (0.9500 to {rows[23][0][:12]})"
    )
    assert (left.snippet, left.nearest_snippet) == ("question 10", "question 23")
    assert left.to_json()["nearest_turns"][0] == {"role": "user", "content": "question 23"}
    assert gone.to_json()["turns"] is None


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
