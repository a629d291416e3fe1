"""Messages: `messages`, a list of {"role": ..., "content": ...}, as chat APIs have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from deita_tasks.conversations import Turn
from deita_tasks.loading.base import RowFormat
from deita_tasks.loading.chat import parse_turns
from deita_tasks.loading.json_text import without_items
from deita_tasks.strict_json import JSON


class Messages(RowFormat):
    """A column of turns with `role` and `content` (or `from` and `value`)."""

    name: ClassVar[str] = "messages"
    expected: ClassVar[str] = "messages (a list of {role, content})"

    column: str = "messages"

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        return (cls(), cls(column="dialogs"))

    def required_columns(self) -> tuple[str, ...]:
        return (self.column,)

    def take_turns(self, columns: dict[str, JSON]) -> list[Turn]:
        return parse_turns(columns.pop(self.column), self.column)

    def without_last(self, columns: Mapping[str, JSON], turns: int) -> Mapping[str, JSON] | None:
        shorter = without_items(columns[self.column], turns)
        return None if shorter is None else {**columns, self.column: shorter}
