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
        """Return the column `messages`, then `dialogs`, as some pools name it."""
        return (cls(), cls(column="dialogs"))

    def required_columns(self) -> tuple[str, ...]:
        """Return the one column that holds all turns."""
        return (self.column,)

    def take_turns(self, columns: dict[str, JSON]) -> list[Turn]:
        """Return the turns in order; the list may be JSON text. Raises BadRow for a bad turn."""
        return parse_turns(columns.pop(self.column), self.column)

    def without_last(self, columns: Mapping[str, JSON], turns: int) -> Mapping[str, JSON] | None:
        """Return the row with a shorter list, JSON text if it was; None if no turn would be left.

        Raises BadRow where the column holds no list.
        """
        shorter = without_items(columns[self.column], turns)
        return None if shorter is None else {**columns, self.column: shorter}
