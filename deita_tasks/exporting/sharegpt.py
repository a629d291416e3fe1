"""ShareGPT: conversations, a list of {"from": ..., "value": ...}."""

from __future__ import annotations

from typing import ClassVar

from deita_tasks.exporting.base import Columns, Survey
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.exporting.turns import to_turn_objects
from deita_tasks.records import SHAREGPT_KEYS, Conversation, Role

ROLE_NAMES: dict[Role, str] = {
    "system": "system",
    "user": "human",
    "assistant": "gpt",
    "tool": "tool",
}


class ShareGPT(JsonLines):
    """selected.jsonl as the original project and most trainers read it.

    Holds every conversation.
    """

    name: ClassVar[str] = "sharegpt"
    own_columns: ClassVar[tuple[str, ...]] = ("conversations",)

    def to_columns(self, conversation: Conversation, survey: Survey) -> Columns:
        turns, extra = to_turn_objects(conversation, SHAREGPT_KEYS, ROLE_NAMES)
        return Columns({"conversations": turns}, extra)
