"""Messages: `messages`, a list of {"role": ..., "content": ...}, as chat APIs and chat templates
have it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from deita_tasks.loading.base import RowFormat
from deita_tasks.loading.chat import chat_turns, keep_fields
from deita_tasks.records import Turn


class Messages(RowFormat):
    """A column of turns with `role` and `content` (or `from` and `value`)."""

    name: ClassVar[str] = "messages"
    expected: ClassVar[str] = "messages (a list of {role, content})"

    column: str = "messages"

    def needs(self) -> tuple[str, ...]:
        return (self.column,)

    def turns(self, columns: dict[str, Any]) -> list[Turn]:
        turns, fields = chat_turns(columns.pop(self.column), self.column)
        keep_fields(columns, fields)
        return turns
