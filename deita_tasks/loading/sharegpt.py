"""ShareGPT: `conversations`, a list of {"from": ..., "value": ...}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from deita_tasks.loading.base import RowFormat
from deita_tasks.loading.chat import chat_turns, keep_fields
from deita_tasks.records import Turn


class ShareGPT(RowFormat):
    """A column of turns with `from` and `value` (or `role` and `content`, as some pools have it)."""

    name: ClassVar[str] = "sharegpt"
    expected: ClassVar[str] = "conversations (a list of {from, value})"

    column: str = "conversations"

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        return (cls(), cls(column="conversation"))

    def needs(self) -> tuple[str, ...]:
        return (self.column,)

    def turns(self, columns: dict[str, Any]) -> list[Turn]:
        turns, fields = chat_turns(columns.pop(self.column), self.column)
        keep_fields(columns, fields)
        return turns
