"""Messages: a list of {"role": ..., "content": ...}, as chat templates read it."""

from __future__ import annotations

from typing import ClassVar

from deita_tasks.exporting.base import Columns, Survey
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.exporting.turns import turn_objects
from deita_tasks.records import Conversation


class Messages(JsonLines):
    """selected.jsonl in the form of chat APIs and of transformers' chat templates; holds every
    conversation.
    """

    name: ClassVar[str] = "messages"
    own_columns: ClassVar[tuple[str, ...]] = ("messages",)

    def columns(self, conversation: Conversation, survey: Survey) -> Columns:
        turns, extra = turn_objects(conversation)
        return Columns({"messages": turns}, extra)
