"""The input's own layout: every row as it came."""

from __future__ import annotations

from typing import ClassVar

from deita_tasks.conversations import Conversation
from deita_tasks.exporting.base import Columns, Survey
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.models.chat import chat_turns


class AsInput(JsonLines):
    """selected.jsonl with the rows of the pool's files: their columns, names, order and values.

    Also a pool of several layouts keeps them all. A conversation that came from no row is written
    as messages.
    """

    name: ClassVar[str] = "input"
    own_columns: ClassVar[tuple[str, ...]] = ()

    def to_columns(self, conversation: Conversation, survey: Survey) -> Columns:
        """Return the row as it came, all of it as extra columns, so that none is renamed."""
        if conversation.row:
            return Columns({}, conversation.row)
        tools = {} if conversation.tools is None else {"tools": conversation.tools}
        return Columns({}, {"messages": chat_turns(conversation), **tools, **conversation.extra})
