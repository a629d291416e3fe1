"""Prompt and response: two columns, under any of the names in PAIRS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from deita_tasks.loading.base import RowFormat, text_of
from deita_tasks.loading.chat import chat_turns, keep_fields
from deita_tasks.records import Role, Turn

PAIRS = (
    ("prompt", "response"),
    ("prompt", "completion"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("problem", "solution"),
    ("inputs", "targets"),
    ("input", "output"),
)


class PromptResponse(RowFormat):
    """A text the user sent, and the answer. Either may be a list of {role, content}, as TRL's
    conversational data sets have it.

    A column with a system prompt stays what it is, an extra column: its names vary, and scores do
    not read it.
    """

    name: ClassVar[str] = "prompt_response"
    expected: ClassVar[str] = (
        "prompt, response (or "
        + "; ".join(f"{prompt}, {response}" for prompt, response in PAIRS[1:])
        + ")"
    )

    prompt: str = "prompt"
    response: str = "response"

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        return [cls(prompt=prompt, response=response) for prompt, response in PAIRS]

    def needs(self) -> tuple[str, ...]:
        return (self.prompt, self.response)

    def turns(self, columns: dict[str, Any]) -> list[Turn]:
        asked, fields = _side(columns, self.prompt, "user")
        answered, more = _side(columns, self.response, "assistant")
        keep_fields(columns, fields + more)
        return asked + answered


def _side(
    columns: dict[str, Any], name: str, role: Role
) -> tuple[list[Turn], list[dict[str, Any] | None]]:
    value = columns.pop(name)
    if isinstance(value, list):
        return chat_turns(value, name)
    return [Turn(role, text_of(value, repr(name)))], [None]
