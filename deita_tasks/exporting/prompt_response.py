"""Prompt and response: two columns of text."""

from __future__ import annotations

from typing import Any, ClassVar

from deita_tasks.exporting.base import DoesNotFit
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.records import Conversation


class PromptResponse(JsonLines):
    """selected.jsonl with the columns prompt and response. Holds only conversations of one user and one assistant turn."""

    name: ClassVar[str] = "prompt_response"
    own_columns: ClassVar[tuple[str, ...]] = ("prompt", "response")

    def columns(self, conversation: Conversation) -> dict[str, Any]:
        roles = [turn.role for turn in conversation.turns]
        if roles != ["user", "assistant"]:
            raise DoesNotFit(f"its turns are {', '.join(roles)} where user, assistant was expected")
        prompt, response = conversation.turns
        return {"prompt": prompt.content, "response": response.content}
