"""A conversation as a list of objects, one a turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deita_tasks.records import Conversation, Role

# The extra column in which loading keeps what a turn holds beside role and text (tool_calls, a
# finer role name): an object or null a turn.
TURN_FIELDS = "turn_fields"

CHAT_NAMES: dict[Role, str] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


def turn_objects(
    conversation: Conversation,
    speaker: str = "role",
    said: str = "content",
    names: Mapping[Role, str] = CHAT_NAMES,
) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    """The turns as {speaker: ..., said: ...}, and the input's columns that stay beside them.

    What the input's turns held beside role and text is put back into them, so that tool calls stand
    where they stood; where that would hide a text or a role, the column TURN_FIELDS stays a column.
    """
    turns: list[dict[str, Any]] = [
        {speaker: names[turn.role], said: turn.content} for turn in conversation.turns
    ]
    fields = conversation.extra.get(TURN_FIELDS)
    if not _can_return(fields, len(turns), speaker, said):
        return turns, conversation.extra
    for turn, more in zip(turns, fields or [], strict=True):
        turn.update(more or {})
    return turns, {name: value for name, value in conversation.extra.items() if name != TURN_FIELDS}


def _can_return(fields: Any, turns: int, speaker: str, said: str) -> bool:
    """Whether a reader would find each of `fields` in its turn again, and nothing else changed."""
    if not isinstance(fields, list) or len(fields) != turns or not any(fields):
        return False
    hiding = (
        {said} if speaker == "from" else {said, "from"}
    )  # a reader takes "from" for the speaker wherever it stands
    for more in fields:
        if more is None:
            continue
        if not isinstance(more, dict) or not more or None in more.values() or hiding & more.keys():
            return False
        if not isinstance(more.get(speaker, ""), str):
            return False
    return True
