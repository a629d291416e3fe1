"""Prompt and response: two columns."""

from __future__ import annotations

from typing import ClassVar

from deita_tasks.conversations import Conversation, parse_tools
from deita_tasks.exporting.base import Columns, Survey
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.models.chat import chat_turns
from deita_tasks.strict_json import JSON

AS_TURNS = "prompt and response are lists of turns"


class PromptResponse(JsonLines):
    """selected.jsonl with the columns prompt and response. Holds every conversation.

    Both are texts if every conversation is one user and one assistant turn. Otherwise both are
    lists of {role, content} in every row, as in TRL's conversational data sets: prompt ends with
    the last user turn, and response holds the turns after it.
    """

    name: ClassVar[str] = "prompt_response"
    own_columns: ClassVar[tuple[str, ...]] = ("prompt", "response", "tools")
    optional_columns: ClassVar[tuple[str, ...]] = ("tools",)

    def to_columns(self, conversation: Conversation, survey: Survey) -> Columns:
        """Return both sides, as texts or as lists of turns.

        The first row that is no plain exchange notes in `survey` that all rows have lists.
        """
        own: dict[str, JSON]
        if not _is_plain_exchange(conversation):
            survey.notes.add(AS_TURNS)
        if AS_TURNS not in survey.notes:
            user, assistant = conversation.turns
            own = {"prompt": user.content, "response": assistant.content}
        else:
            turns = chat_turns(conversation)
            end = _prompt_length(conversation)
            own = {"prompt": turns[:end], "response": turns[end:]}
        own["tools"] = parse_tools(conversation.tools)
        return Columns(own, conversation.extra)


def _prompt_length(conversation: Conversation) -> int:
    """Return the number of turns up to the last user turn."""
    length = 0
    for number, turn in enumerate(conversation.turns, 1):
        if turn.role == "user":
            length = number
    return length


def _is_plain_exchange(conversation: Conversation) -> bool:
    """Return whether the conversation is one user and one assistant turn, both only text."""
    roles = [turn.role for turn in conversation.turns]
    return roles == ["user", "assistant"] and not any(turn.fields for turn in conversation.turns)
