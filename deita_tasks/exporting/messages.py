"""Messages: a list of {"role": ..., "content": ...}, as chat templates read it."""

from __future__ import annotations

from typing import Any, ClassVar

from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.records import Conversation


class Messages(JsonLines):
    """selected.jsonl in the form of chat APIs and of transformers' chat templates; holds every conversation."""

    name: ClassVar[str] = "messages"
    own_columns: ClassVar[tuple[str, ...]] = ("messages",)

    def columns(self, conversation: Conversation) -> dict[str, Any]:
        return {"messages": [{"role": turn.role, "content": turn.content} for turn in conversation.turns]}
