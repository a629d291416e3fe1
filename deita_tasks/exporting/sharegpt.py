"""ShareGPT: conversations, each turn {"from": ..., "value": ...}."""

from __future__ import annotations

from typing import ClassVar

from deita_tasks.exporting.base import Columns, Survey
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.exporting.turns import turn_objects
from deita_tasks.records import Conversation, Role

NAMES: dict[Role, str] = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


class ShareGPT(JsonLines):
    """selected.jsonl in the form that the original project and most trainers read; holds every
    conversation.
    """

    name: ClassVar[str] = "sharegpt"
    own_columns: ClassVar[tuple[str, ...]] = ("conversations",)

    def columns(self, conversation: Conversation, survey: Survey) -> Columns:
        turns, extra = turn_objects(conversation, "from", "value", NAMES)
        return Columns({"conversations": turns}, extra)
