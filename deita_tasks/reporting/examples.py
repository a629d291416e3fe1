"""Which rows the report shows in full, and how they are cut to fit a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.records import Conversation

BEST = 8  # selected rows shown
CLOSEST = 6  # rejected rows shown, of each kind
MOST_TURNS = 6
MOST_CHARACTERS = 1_500  # of one turn
SNIPPET = 160
MOST_RAW = 300
MOST_REASONS = 20
FEW = 3  # rows shown of each reason


class ShownTurn(NamedTuple):
    """A turn's role, the beginning of its text, and how many characters are left out."""

    role: str
    text: str
    left_out: int


class Example(NamedTuple):
    """A row of the ledger with its conversation, cut to fit."""

    row: Mapping[str, Any]
    snippet: str
    turns: list[ShownTurn]
    turns_left_out: int


class Pair(NamedTuple):
    """A row, and beside it the kept row that blocked it, if any."""

    example: Example
    blocker: Example | None


class Group(NamedTuple):
    """Examples of one kind, with a heading and a sentence."""

    title: str
    text: str
    examples: list[Pair]


class Problem(NamedTuple):
    """A reason, how many rows have it, and a few of them: uri, row, detail, raw."""

    reason: str
    rows: int
    examples: list[dict[str, Any]]


def best_selected(ledger: pa.Table) -> list[dict[str, Any]]:
    """The selected rows of the highest rank."""
    return _first(ledger.filter(pc.field("decision") == "selected"), [("rank", "ascending")])


def closest_calls(ledger: pa.Table, measure: str = "similarity") -> list[dict[str, Any]]:
    """The too similar rows that are nearest to the limit, on its wrong side: of the least
    similarity, or the greatest distance.
    """
    order = "descending" if measure == "distance" else "ascending"
    return _first(
        ledger.filter(pc.field("decision") == "too_similar"),
        [("similarity", order), ("rank", "ascending")],
    )


def nearest_copies(ledger: pa.Table, measure: str = "similarity") -> list[dict[str, Any]]:
    """The too similar rows that are nearest to a kept one."""
    return closest_calls(ledger, "similarity" if measure == "distance" else "distance")


def first_left_over(ledger: pa.Table) -> list[dict[str, Any]]:
    """The rows of the highest rank among those that the budget left over."""
    return _first(ledger.filter(pc.field("decision") == "below_budget"), [("rank", "ascending")])


def _first(rows: pa.Table, order: list[tuple[str, str]]) -> list[dict[str, Any]]:
    most = BEST if order[0][0] == "rank" else CLOSEST
    found: list[dict[str, Any]] = rows.take(
        pc.sort_indices(rows, sort_keys=order)[:most]
    ).to_pylist()
    return found


def chosen_examples(ledger: pa.Table) -> set[str]:
    """The ids of every conversation that `example_groups` shows."""
    rows = [
        *best_selected(ledger),
        *closest_calls(ledger),
        *nearest_copies(ledger),
        *first_left_over(ledger),
    ]
    return {row["id"] for row in rows} | {row["nearest_id"] for row in rows if row["nearest_id"]}


def example_groups(
    ledger: pa.Table,
    conversations: Mapping[str, Conversation],
    limit: float | None,
    measure: str = "similarity",
) -> list[Group]:
    """The examples of the report, those of the selection first. `measure`: similarity or distance,
    of which `limit` is one.
    """
    calls, copies = closest_calls(ledger, measure), nearest_copies(ledger, measure)
    seen = {row["id"] for row in calls}
    copies = [row for row in copies if row["id"] not in seen]
    bound = f" of {limit}" if limit is not None else ""

    def pairs(rows: Sequence[Mapping[str, Any]]) -> list[Pair]:
        return pairs_of(rows, ledger, conversations)

    return [
        Group(
            "Best selected",
            "The selected conversations with the highest evol scores.",
            pairs(best_selected(ledger)),
        ),
        Group(
            f"Rejected, just {'under' if measure == 'distance' else 'over'} the limit",
            f"The rejected conversations whose {measure} is nearest to the limit{bound}, each "
            "beside the kept one that blocked it. "
            "Where such a pair is not a repetition, the limit is too strict for this pool.",
            pairs(calls),
        ),
        Group(
            "Rejected, nearest to a kept one",
            "The rejected conversations of the "
            f"{'least' if measure == 'distance' else 'greatest'} {measure}, which should be "
            "repetitions, "
            "each beside the kept one that blocked it.",
            pairs(copies),
        ),
        Group(
            "Left over",
            "The conversations with the highest evol scores that the budget had no room for.",
            pairs(first_left_over(ledger)),
        ),
    ]


def pairs_of(
    rows: Sequence[Mapping[str, Any]], ledger: pa.Table, conversations: Mapping[str, Conversation]
) -> list[Pair]:
    """Rows of the ledger, each with the kept row that blocked it."""
    blockers = _rows_by_id(ledger, [row["nearest_id"] for row in rows if row["nearest_id"]])
    return [_pair(row, blockers.get(row["nearest_id"]), conversations) for row in rows]


def _rows_by_id(ledger: pa.Table, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    kept = ledger.filter(
        (pc.field("decision") == "selected") & pc.field("id").isin(pa.array(ids, pa.string()))
    )
    return {row["id"]: row for row in kept.to_pylist()}


def _pair(
    row: Mapping[str, Any],
    blocker: Mapping[str, Any] | None,
    conversations: Mapping[str, Conversation],
) -> Pair:
    return Pair(
        _example(row, conversations[row["id"]]),
        _example(blocker, conversations[blocker["id"]]) if blocker else None,
    )


def _example(row: Mapping[str, Any], conversation: Conversation) -> Example:
    turns = [
        ShownTurn(
            turn.role, turn.content[:MOST_CHARACTERS], max(0, len(turn.content) - MOST_CHARACTERS)
        )
        for turn in conversation.turns[:MOST_TURNS]
    ]
    asked = next(
        (turn.content for turn in conversation.turns if turn.role == "user"),
        conversation.turns[0].content,
    )
    words = " ".join(asked[: 4 * SNIPPET].split())
    snippet = words if len(words) <= SNIPPET else words[:SNIPPET].rsplit(" ", 1)[0] + " …"
    return Example(row, snippet, turns, max(0, len(conversation.turns) - MOST_TURNS))


def quarantine_groups(quarantine: pa.Table) -> list[Problem]:
    """Quarantined rows by reason, the commonest first, with the first few of each."""
    return _problems(quarantine)


def unscorable_groups(ledger: pa.Table) -> list[Problem]:
    """Unscorable rows by reason, the commonest first, with the first few of each."""
    return _problems(ledger.filter(pc.field("decision") == "unscorable"))


def _problems(rows: pa.Table) -> list[Problem]:
    tally = sorted(
        (-pair["counts"], pair["values"]) for pair in pc.value_counts(rows["reason"]).to_pylist()
    )
    columns = [
        name for name in ("source_uri", "source_row", "detail", "raw") if name in rows.column_names
    ]
    problems = []
    for count, reason in tally[:MOST_REASONS]:
        few = rows.filter(pc.field("reason") == reason).select(columns).slice(0, FEW).to_pylist()
        shown = [
            {
                **row,
                "raw": (row.get("raw") or "")[:MOST_RAW],
                "detail": (row.get("detail") or "")[:MOST_RAW],
            }
            for row in few
        ]
        problems.append(Problem(reason, -count, shown))
    return problems
