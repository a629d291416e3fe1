"""Alpaca: `instruction`, `input`, `output`; optionally `history`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from deita_tasks.conversations import Turn
from deita_tasks.loading.base import BadRow, RowFormat, describe_type, require_text, take_text
from deita_tasks.loading.json_text import parse
from deita_tasks.strict_json import JSON


class Alpaca(RowFormat):
    """One exchange per row; earlier exchanges in `history` as [user, assistant] pairs.

    The user's text is the instruction, or instruction + "\\n" + input if there is an input. An
    absent, a null and an empty input or history mean the same.
    """

    name: ClassVar[str] = "alpaca"
    expected: ClassVar[str] = "instruction, output (and input, history)"

    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        """Return Alpaca's own column names, and those of Dolly: instruction, context, response."""
        dolly = cls(input="context", output="response")
        return (cls(), dolly)

    def required_columns(self) -> tuple[str, ...]:
        """Return the columns of the last exchange; input and history may be absent."""
        return (self.instruction, self.output)

    def take_turns(self, columns: dict[str, JSON]) -> list[Turn]:
        """Return user and assistant turns in alternation, those in `history` first.

        Raises BadRow for a column that is no text, and for a history that holds anything but pairs.
        """
        instruction = take_text(columns, self.instruction)
        output = take_text(columns, self.output)
        input_text = _take_optional_text(columns, self.input)
        exchanges = _parse_history(columns.pop("history", None))
        if input_text:
            instruction = f"{instruction}\n{input_text}"
        exchanges.append((instruction, output))
        turns: list[Turn] = []
        for question, answer in exchanges:
            turns.append(Turn("user", question))
            turns.append(Turn("assistant", answer))
        return turns

    def without_last(self, columns: Mapping[str, JSON], turns: int) -> Mapping[str, JSON] | None:
        """Return the row with an earlier exchange, from its history, as instruction and output.

        None for an odd number of turns, and where no exchange would be left. A history that was
        JSON text stays one. The input becomes empty: only the last exchange had it apart.
        """
        exchanges = _parse_history(columns.get("history"))
        left_out = turns // 2
        if turns % 2 or not 0 < left_out <= len(exchanges):
            return None
        earlier = len(exchanges) - left_out
        question, answer = exchanges[earlier]
        history: JSON = [list(exchange) for exchange in exchanges[:earlier]]
        if isinstance(columns["history"], str):
            history = json.dumps(history, ensure_ascii=False)
        own = {self.instruction: question, self.output: answer, "history": history}
        if self.input in columns:
            own[self.input] = ""
        return {**columns, **own}


def _take_optional_text(columns: dict[str, JSON], name: str) -> str:
    """Remove a column, and return its text; "" if it is absent or null.

    Raises BadRow for a value of another type.
    """
    if columns.get(name) is None:
        columns.pop(name, None)
        return ""
    return take_text(columns, name)


def _parse_history(value: JSON) -> list[tuple[str, str]]:
    """Return the [user, assistant] pairs in `value`, a list or its JSON text. Raises BadRow."""
    if isinstance(value, str) and value.strip():
        value = parse(value)
    if not value:
        return []
    if not isinstance(value, list):
        kind = describe_type(value)
        detail = f"'history' is {kind}; expected a list of [user, assistant] pairs"
        raise BadRow("malformed_row", detail)
    return [_parse_exchange(entry, number) for number, entry in enumerate(value, 1)]


def _parse_exchange(entry: JSON, number: int) -> tuple[str, str]:
    """Return an entry of `history` as (user, assistant).

    number: of the entry, from 1 on. Raises BadRow unless it is a list of two texts.
    """
    if not isinstance(entry, list) or len(entry) != 2:
        shape = describe_type(entry)
        if isinstance(entry, list):
            shape = f"a list of {len(entry)}"
        detail = f"entry {number} of 'history' is {shape}; expected [user, assistant]"
        raise BadRow("malformed_row", detail)
    label = f"a text in entry {number} of 'history'"
    question, answer = entry
    return require_text(question, label), require_text(answer, label)
