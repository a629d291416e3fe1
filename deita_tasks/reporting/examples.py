"""The rows that the report shows in full, and how to shorten them for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.conversations import Conversation
from deita_tasks.decisions import EXCLUDED, NO_PLACE, LedgerRow, ledger_rows

BEST = 8  # selected rows shown
CLOSEST = 6  # rejected rows shown, of each kind
MAX_TURNS = 6
MAX_CHARACTERS = 3_000
MAX_TURN_CHARACTERS = 1_500
SNIPPET_CHARACTERS = 160
MAX_RAW_CHARACTERS = 300
MAX_REASONS = 20
ROWS_PER_REASON = 3


class ShortTurn(NamedTuple):
    """A turn's role, the beginning of its text, and the number of characters left out."""

    role: str
    text: str
    left_out: int


class Example(NamedTuple):
    """A row of the ledger with its conversation, shortened."""

    row: LedgerRow
    snippet: str
    turns: list[ShortTurn]
    turns_left_out: int


class ExamplePair(NamedTuple):
    """A row, and the selected row that blocked it, if any."""

    example: Example
    blocker: Example | None


class ExampleGroup(NamedTuple):
    """Examples of one kind, with a heading and a sentence."""

    title: str
    text: str
    examples: list[ExamplePair]


class BadRow(NamedTuple):
    """A quarantined or unscorable row."""

    source_uri: str
    source_row: int
    detail: str
    raw: str


class BadRows(NamedTuple):
    """A reason, the number of rows that have it, and a few of them."""

    reason: str
    rows: int
    examples: list[BadRow]


def best_selected(ledger: pa.Table) -> list[LedgerRow]:
    """Return the best selected rows.

    At most BEST, by rank; where ranks are not known, by evol score.
    """
    keys = [("rank", "ascending"), ("evol_score", "descending")]
    return _first(_with_decision(ledger, "selected"), keys, BEST)


def closest_calls(ledger: pa.Table, measure: str = "similarity") -> list[LedgerRow]:
    """Return the rejected rows closest to the limit.

    They have the lowest similarity, or the greatest distance, of the rejected rows.
    """
    order = "descending" if measure == "distance" else "ascending"
    keys = [("similarity", order), ("rank", "ascending")]
    return _first(_with_decision(ledger, "too_similar"), keys, CLOSEST)


def nearest_copies(ledger: pa.Table, measure: str = "similarity") -> list[LedgerRow]:
    """Return the rejected rows closest to a selected one.

    At most CLOSEST, with the greatest similarity or the least distance: the surest duplicates.
    """
    return closest_calls(ledger, "similarity" if measure == "distance" else "distance")


def best_below_budget(ledger: pa.Table) -> list[LedgerRow]:
    """Return the best rows beyond the budget, or those that may be if not all are scored.

    At most BEST. A row that is not scored stands by the upper bound of its evol score.
    """
    keys = [("rank", "ascending"), ("evol_upper", "descending")]
    left_over = ledger.filter(pc.field("decision").isin(NO_PLACE))
    return _first(left_over, keys, BEST)


def _with_decision(ledger: pa.Table, decision: str) -> pa.Table:
    """Return the rows of the ledger that have a decision, in its order."""
    return ledger.filter(pc.field("decision") == decision)


def _first(rows: pa.Table, keys: list[tuple[str, str]], count: int) -> list[LedgerRow]:
    """Return the first `count` rows by `keys`, pairs of column and direction; nulls come last."""
    return ledger_rows(rows.take(pc.sort_indices(rows, sort_keys=keys)[:count]))


def example_ids(ledger: pa.Table) -> set[str]:
    """Return the ids of every conversation that `example_groups` shows."""
    rows = [
        *best_selected(ledger),
        *closest_calls(ledger),
        *nearest_copies(ledger),
        *best_below_budget(ledger),
    ]
    ids = {row.id for row in rows if row.id}
    return ids | {row.nearest_id for row in rows if row.nearest_id}


def example_groups(
    ledger: pa.Table,
    conversations: Mapping[str, Conversation],
    limit: float | None,
    measure: str = "similarity",
) -> list[ExampleGroup]:
    """Return the examples of the report, selected ones first.

    measure: what `limit` bounds, similarity or distance.
    """
    calls = closest_calls(ledger, measure)
    call_ids = {row.id for row in calls}
    copies = [row for row in nearest_copies(ledger, measure) if row.id not in call_ids]
    bound = "" if limit is None else f" of {limit}"
    side, extreme = ("under", "least") if measure == "distance" else ("over", "greatest")

    def pairs(rows: Sequence[LedgerRow]) -> list[ExamplePair]:
        """Return rows with their conversations and with the rows that blocked them."""
        return pair_examples(rows, ledger, conversations)

    return [
        ExampleGroup(
            "Best selected",
            "The selected conversations with the highest evol scores.",
            pairs(best_selected(ledger)),
        ),
        ExampleGroup(
            f"Near misses: rejected conversations closest to the {measure} limit",
            f"Their {measure} is just {side} the limit{bound}; each stands beside the selected "
            "conversation that blocked it. If such a pair is not a near-duplicate, the limit is "
            "too strict for this pool.",
            pairs(calls),
        ),
        ExampleGroup(
            "Rejected, closest to a selected one",
            f"The rejected conversations of the {extreme} {measure}, which should be "
            "near-duplicates, each beside the selected one that blocked it.",
            pairs(copies),
        ),
        ExampleGroup(
            "Left over",
            "The conversations with the highest evol scores for which there was no place.",
            pairs(best_below_budget(ledger)),
        ),
    ]


def pair_examples(
    rows: Sequence[LedgerRow], ledger: pa.Table, conversations: Mapping[str, Conversation]
) -> list[ExamplePair]:
    """Return rows of the ledger, each with the selected row that blocked it.

    In the order of `rows`; the blocker is None where a row has none.
    """
    blocker_ids = pa.array([row.nearest_id for row in rows if row.nearest_id], pa.string())
    selected = _with_decision(ledger, "selected")
    blockers = ledger_rows(selected.filter(pc.field("id").isin(blocker_ids)))
    examples = {row.id: _example(row, conversations) for row in blockers}
    return [ExamplePair(_example(row, conversations), examples.get(row.nearest_id)) for row in rows]


def _example(row: LedgerRow, conversations: Mapping[str, Conversation]) -> Example:
    """Return a row with the beginning of its conversation.

    Raises KeyError for a conversation that `example_ids` does not name, as only these are read.
    """
    assert row.id is not None, "a quarantined row has no conversation"
    conversation = conversations[row.id]
    more_turns = max(0, len(conversation.turns) - MAX_TURNS)
    return Example(row, snippet_of(conversation), short_turns(conversation), more_turns)


def short_turns(conversation: Conversation) -> list[ShortTurn]:
    """Return the first turns, shortened.

    At most MAX_TURNS, of MAX_TURN_CHARACTERS each and MAX_CHARACTERS together.
    """
    turns = []
    room = MAX_CHARACTERS
    for turn in conversation.turns[:MAX_TURNS]:
        text = turn.content[: min(room, MAX_TURN_CHARACTERS)]
        room -= len(text)
        turns.append(ShortTurn(turn.role, text, len(turn.content) - len(text)))
    return turns


def snippet_of(conversation: Conversation) -> str:
    """Return the beginning of the first user turn, in whole words.

    At most SNIPPET_CHARACTERS on one line, then an ellipsis. Without a user turn, of the first
    turn.
    """
    user_turns = [turn.content for turn in conversation.turns if turn.role == "user"]
    text = user_turns[0] if user_turns else conversation.turns[0].content
    words = " ".join(text[: 4 * SNIPPET_CHARACTERS].split())
    if len(words) <= SNIPPET_CHARACTERS:
        return words
    return words[:SNIPPET_CHARACTERS].rsplit(" ", 1)[0] + " …"


def group_quarantined(quarantine: pa.Table) -> list[BadRows]:
    """Return quarantined rows by reason, the most common first, with a few rows of each."""
    return _group_by_reason(quarantine)


def group_unscorable(ledger: pa.Table) -> list[BadRows]:
    """Return unscorable rows by reason, the most common first, with a few rows of each."""
    return _group_by_reason(_with_decision(ledger, "unscorable"))


def group_excluded(ledger: pa.Table) -> list[BadRows]:
    """Return the rows that filters left out by decision, with the reasons of a few.

    In the order of EXCLUDED; a decision that no row has is not in the list.
    """
    groups = []
    for decision in EXCLUDED:
        rows = _with_decision(ledger, decision)
        if rows.num_rows:
            few = rows.slice(0, ROWS_PER_REASON).to_pylist()
            examples = [
                BadRow(row["source_uri"], row["source_row"], row["reason"][:MAX_RAW_CHARACTERS], "")
                for row in few
            ]
            groups.append(BadRows(decision, rows.num_rows, examples))
    return groups


def _group_by_reason(rows: pa.Table) -> list[BadRows]:
    """Return rows by reason, the most common first: at most MAX_REASONS of them.

    Works for a quarantine, and for ledger rows, which have neither detail nor raw text.
    """
    pairs = pc.value_counts(rows["reason"]).to_pylist()
    counts = sorted((-pair["counts"], pair["values"]) for pair in pairs)
    groups = []
    for negative_count, reason in counts[:MAX_REASONS]:
        few = rows.filter(pc.field("reason") == reason).slice(0, ROWS_PER_REASON).to_pylist()
        examples = [
            BadRow(
                row["source_uri"],
                row["source_row"],
                (row.get("detail") or "")[:MAX_RAW_CHARACTERS],
                (row.get("raw") or "")[:MAX_RAW_CHARACTERS],
            )
            for row in few
        ]
        groups.append(BadRows(reason, -negative_count, examples))
    return groups
