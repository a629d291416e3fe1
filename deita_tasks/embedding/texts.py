"""Which turns of a conversation are embedded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from deita_tasks.conversations import Conversation, Turn

EmbeddedText = Literal["all", "instructions", "answers"]


def choose_turns(conversation: Conversation, text: EmbeddedText) -> Sequence[Turn]:
    """Return all turns, the user's, or the assistant's after the first of the user.

    The answers are those of the original's `only_answer`.
    """
    turns = conversation.turns
    if text == "all":
        return turns
    if text == "instructions":
        return [turn for turn in turns if turn.role == "user"]
    roles = [turn.role for turn in turns]
    start = roles.index("user") if "user" in roles else len(roles)
    return [turn for turn in turns[start:] if turn.role == "assistant"]


def join_turns(conversation: Conversation, text: EmbeddedText, separator: str) -> str:
    """Return the texts of the embedded turns with `separator` between two; "" without a turn."""
    return separator.join(turn.text for turn in choose_turns(conversation, text))
