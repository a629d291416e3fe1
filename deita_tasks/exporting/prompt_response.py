"""Prompt and response: two columns."""

from __future__ import annotations

from typing import ClassVar

from deita_tasks.exporting.base import Columns, Survey
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.exporting.turns import turn_objects
from deita_tasks.records import Conversation

AS_TURNS = "prompt and response are lists of turns"


class PromptResponse(JsonLines):
    """selected.jsonl with the columns prompt and response; holds every conversation.

    Both are texts where every conversation is one user and one assistant turn. Otherwise both are
    lists of {role, content} in every row, as in TRL's conversational data sets: prompt ends with
    the last user turn, and response holds what follows.
    """

    name: ClassVar[str] = "prompt_response"
    own_columns: ClassVar[tuple[str, ...]] = ("prompt", "response")

    def columns(self, conversation: Conversation, survey: Survey) -> Columns:
        turns, extra = turn_objects(conversation)
        roles = [turn.role for turn in conversation.turns]
        if roles != ["user", "assistant"] or any(
            turn.keys() != {"role", "content"} for turn in turns
        ):
            survey.notes.add(AS_TURNS)
        if AS_TURNS not in survey.notes:
            prompt, response = (turn.content for turn in conversation.turns)
            return Columns({"prompt": prompt, "response": response}, extra)
        end = len(roles) - roles[::-1].index("user") if "user" in roles else 0
        return Columns({"prompt": turns[:end], "response": turns[end:]}, extra)
