"""Messages: a list of {"role": ..., "content": ...}, as chat templates read it."""

from __future__ import annotations

from typing import ClassVar

from deita_tasks.conversations import Conversation, parse_tools
from deita_tasks.exporting.base import Columns, Survey
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.models.chat import chat_turns


class Messages(JsonLines):
    """selected.jsonl as chat APIs and transformers' chat templates read it.

    Holds every conversation. Tools are in the column `tools`.
    """

    name: ClassVar[str] = "messages"
    own_columns: ClassVar[tuple[str, ...]] = ("messages", "tools")
    optional_columns: ClassVar[tuple[str, ...]] = ("tools",)

    def to_columns(self, conversation: Conversation, survey: Survey) -> Columns:
        """Return messages as {role, content} with the other fields of a turn; tools as objects."""
        tools = parse_tools(conversation.tools)
        return Columns({"messages": chat_turns(conversation), "tools": tools}, conversation.extra)
