"""Messages: a list of {"role": ..., "content": ...}, as chat templates read it."""

from __future__ import annotations

from typing import ClassVar

from deita_tasks.exporting.base import Columns, Survey
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.exporting.turns import to_turn_objects
from deita_tasks.records import Conversation


class Messages(JsonLines):
    """selected.jsonl as chat APIs and transformers' chat templates read it.

    Holds every conversation.
    """

    name: ClassVar[str] = "messages"
    own_columns: ClassVar[tuple[str, ...]] = ("messages",)

    def to_columns(self, conversation: Conversation, survey: Survey) -> Columns:
        turns, extra = to_turn_objects(conversation)
        return Columns({"messages": turns}, extra)
