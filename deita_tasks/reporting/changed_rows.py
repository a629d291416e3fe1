"""Conversations that joined or left a selection, with their texts: those that are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.conversations import Conversation
from deita_tasks.reporting.examples import ShortTurn, short_turns, snippet_of

SHOWN = 10  # of those that joined, and of those that left
SHORT_ID = 12
TEXT_GONE = "(its text is gone: the pool that had it is no longer in the store)"


class ChangedRow(NamedTuple):
    """A conversation that joined or left.

    change: added or dropped. nearest_id: the selected row that blocks it now, or that blocked it
    before. conversation: None where no pool has it any more.
    """

    id: str
    change: str
    why: str
    rank: int | None
    evol_score: float | None
    nearest_id: str | None
    similarity: float | None
    conversation: Conversation | None
    nearest: Conversation | None

    @property
    def reason(self) -> str:
        """Why, with the row that blocks it now or that blocked it before."""
        if self.nearest_id is None or self.similarity is None:
            return self.why
        return f"{self.why} ({self.similarity:.4f} to {self.nearest_id[:SHORT_ID]})"

    @property
    def snippet(self) -> str:
        """The beginning of its first question."""
        return TEXT_GONE if self.conversation is None else snippet_of(self.conversation)

    @property
    def nearest_snippet(self) -> str | None:
        """The beginning of the first question of the nearest row; None if there is none."""
        return None if self.nearest is None else snippet_of(self.nearest)

    @property
    def turns(self) -> Sequence[ShortTurn]:
        """Its first turns, shortened."""
        return () if self.conversation is None else short_turns(self.conversation)

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values, with whole texts."""
        fields = self._asdict()
        fields["turns"] = _turns(fields.pop("conversation"))
        fields["nearest_turns"] = _turns(fields.pop("nearest"))
        return fields


def _turns(conversation: Conversation | None) -> list[dict[str, str]] | None:
    """Return roles and texts; None without a conversation."""
    if conversation is None:
        return None
    return [{"role": turn.role, "content": turn.content} for turn in conversation.turns]


def shown_rows(changes: pa.Table) -> list[dict[str, Any]]:
    """Return the best SHOWN of the rows that joined, then of those that left."""
    keys = [("evol_score", "descending"), ("id", "ascending")]
    rows: list[dict[str, Any]] = []
    for change in ("added", "dropped"):
        some = changes.filter(pc.equal(changes["change"], change))
        order = pc.sort_indices(some, sort_keys=keys)[:SHOWN]
        rows += some.take(order).to_pylist()
    return rows


def text_ids(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids whose texts are shown with these rows."""
    ids = set()
    for row in rows:
        ids.add(row["id"])
        if row["nearest_id"] is not None:
            ids.add(row["nearest_id"])
    return sorted(ids)


def with_texts(
    rows: Sequence[Mapping[str, Any]], texts: Mapping[str, Conversation]
) -> list[ChangedRow]:
    """Return rows of changes.parquet with their texts."""
    names = ("id", "change", "why", "rank", "evol_score", "nearest_id", "similarity")
    return [
        ChangedRow(
            **{name: row[name] for name in names},
            conversation=texts.get(row["id"]),
            nearest=texts.get(row["nearest_id"] or ""),
        )
        for row in rows
    ]
