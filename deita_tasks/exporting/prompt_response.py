"""Prompt and response: two columns."""

from __future__ import annotations

from typing import ClassVar

from deita_tasks.exporting.base import Columns, Survey
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.exporting.turns import TurnObjects, to_turn_objects
from deita_tasks.records import CHAT_KEYS, Conversation

AS_TURNS = "prompt and response are lists of turns"


class PromptResponse(JsonLines):
    """selected.jsonl with the columns prompt and response. Holds every conversation.

    Both are texts if every conversation is one user and one assistant turn. Otherwise both are
    lists of {role, content} in every row, as in TRL's conversational data sets: prompt ends with
    the last user turn, and response holds the turns after it.
    """

    name: ClassVar[str] = "prompt_response"
    own_columns: ClassVar[tuple[str, ...]] = ("prompt", "response")

    def to_columns(self, conversation: Conversation, survey: Survey) -> Columns:
        objects = to_turn_objects(conversation)
        if not _is_plain_exchange(conversation, objects):
            survey.notes.add(AS_TURNS)
        if AS_TURNS not in survey.notes:
            user, assistant = conversation.turns
            texts = {"prompt": user.content, "response": assistant.content}
            return Columns(texts, objects.extra)
        end = _prompt_length(conversation)
        prompt = objects.turns[:end]
        response = objects.turns[end:]
        return Columns({"prompt": prompt, "response": response}, objects.extra)


def _prompt_length(conversation: Conversation) -> int:
    """Return the number of turns up to the last user turn."""
    length = 0
    for number, turn in enumerate(conversation.turns, 1):
        if turn.role == "user":
            length = number
    return length


def _is_plain_exchange(conversation: Conversation, objects: TurnObjects) -> bool:
    """Return whether the conversation is one user and one assistant turn, both only text."""
    roles = [turn.role for turn in conversation.turns]
    if roles != ["user", "assistant"]:
        return False
    return all(turn.keys() == set(CHAT_KEYS) for turn in objects.turns)
