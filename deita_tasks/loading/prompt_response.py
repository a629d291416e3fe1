"""Prompt and response: two columns, under any of the names in COLUMN_PAIRS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from deita_tasks.loading.base import RowFormat, take_text
from deita_tasks.loading.chat import ChatTurns, parse_turns, store_turn_fields
from deita_tasks.records import Role, Turn
from deita_tasks.strict_json import JSON

COLUMN_PAIRS = (
    ("prompt", "response"),
    ("prompt", "completion"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("problem", "solution"),
    ("inputs", "targets"),
    ("input", "output"),
)
_OTHER_PAIRS = "; ".join(f"{prompt}, {response}" for prompt, response in COLUMN_PAIRS[1:])


class PromptResponse(RowFormat):
    """A user's text and the answer to it.

    Either may be a list of {role, content}, as in TRL's conversational data sets. A column with a
    system prompt stays an extra column: its names vary, and the scores do not read it.
    """

    name: ClassVar[str] = "prompt_response"
    expected: ClassVar[str] = f"prompt, response (or {_OTHER_PAIRS})"

    prompt: str = "prompt"
    response: str = "response"

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        return [cls(prompt=prompt, response=response) for prompt, response in COLUMN_PAIRS]

    def required_columns(self) -> tuple[str, ...]:
        return (self.prompt, self.response)

    def take_turns(self, columns: dict[str, JSON]) -> list[Turn]:
        prompt = _take_side(columns, self.prompt, "user")
        response = _take_side(columns, self.response, "assistant")
        store_turn_fields(columns, prompt.fields + response.fields)
        return prompt.turns + response.turns


def _take_side(columns: dict[str, JSON], name: str, role: Role) -> ChatTurns:
    if isinstance(columns[name], list):
        return parse_turns(columns.pop(name), name)
    turn = Turn(role, take_text(columns, name))
    return ChatTurns([turn], [None])
