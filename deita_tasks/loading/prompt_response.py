"""Prompt and response: two columns, under any of the names in COLUMN_PAIRS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from deita_tasks.conversations import Role, Turn
from deita_tasks.loading.base import RowFormat, take_text
from deita_tasks.loading.chat import parse_turns
from deita_tasks.strict_json import JSON

COLUMN_PAIRS = (
    ("prompt", "response"),
    ("prompt", "completion"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("query", "answers"),  # xLAM: calls as JSON text
    ("prompt", "answer"),
    ("instruction", "answer"),
    ("user", "assistant"),
    ("problem", "solution"),
    ("problem", "generated_solution"),
    ("inputs", "targets"),
    ("input", "output"),
    ("input", "target"),
)
_OTHER_PAIRS = "; ".join(f"{prompt}, {response}" for prompt, response in COLUMN_PAIRS[1:])


class PromptResponse(RowFormat):
    """A user's text and the answer to it.

    Either may be a list of {role, content}, as in TRL's conversational data sets.
    """

    name: ClassVar[str] = "prompt_response"
    expected: ClassVar[str] = f"prompt, response (or {_OTHER_PAIRS})"

    prompt: str = "prompt"
    response: str = "response"

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        """Return a layout for each of COLUMN_PAIRS: a row with several is read by the first."""
        return [cls(prompt=prompt, response=response) for prompt, response in COLUMN_PAIRS]

    def required_columns(self) -> tuple[str, ...]:
        """Return the columns of both sides: a row without either is quarantined."""
        return (self.prompt, self.response)

    def take_turns(self, columns: dict[str, JSON]) -> list[Turn]:
        """Return the turns of the prompt, then those of the response.

        Raises BadRow for a side that is neither a text nor a list of turns.
        """
        prompt = _take_side(columns, self.prompt, "user")
        return prompt + _take_side(columns, self.response, "assistant")


def _take_side(columns: dict[str, JSON], name: str, role: Role) -> list[Turn]:
    """Remove a column, and return its turns: one of `role` for a text, those of a list as they are.

    Raises BadRow for anything else.
    """
    if isinstance(columns[name], list):
        return parse_turns(columns.pop(name), name)
    return [Turn(role, take_text(columns, name))]
