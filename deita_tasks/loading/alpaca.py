"""Alpaca: `instruction`, `input`, `output`; earlier exchanges in `history`, a system prompt in
`system`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from deita_tasks.loading.base import BadRow, RowFormat, kind_of, text_of
from deita_tasks.loading.json_text import parse
from deita_tasks.records import Turn


class Alpaca(RowFormat):
    """One exchange a row, with those before it in `history` as [user, assistant] pairs.

    The user's text is the instruction, or instruction + "\\n" + input where there is an input. Such
    an input stays an extra column too: the last user text ends with "\\n" + input, so that an
    export can part them again. An absent, a null and an empty input, history or system are the
    same.
    """

    name: ClassVar[str] = "alpaca"
    expected: ClassVar[str] = "instruction, output (and input, history, system)"

    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        return (cls(), cls(input="context", output="response"))  # the second is Dolly's

    def needs(self) -> tuple[str, ...]:
        return (self.instruction, self.output)

    def turns(self, columns: dict[str, Any]) -> list[Turn]:
        instruction = text_of(columns.pop(self.instruction), repr(self.instruction))
        output = text_of(columns.pop(self.output), repr(self.output))
        before = _optional(columns, self.input)
        system = _optional(columns, "system")
        turns = [Turn("system", system)] if system else []
        for question, answer in _history(columns.pop("history", None)):
            turns += [Turn("user", question), Turn("assistant", answer)]
        if before:
            columns[self.input] = before
            instruction = f"{instruction}\n{before}"
        return [*turns, Turn("user", instruction), Turn("assistant", output)]


def _optional(columns: dict[str, Any], name: str) -> str:
    value = columns.pop(name, None)
    return "" if value is None else text_of(value, repr(name))


def _history(value: Any) -> list[list[str]]:
    """The [user, assistant] pairs in `value`, a list or its JSON text. Raises BadRow."""
    if isinstance(value, str) and value.strip():
        value = parse(value)
    if not value:
        return []
    if not isinstance(value, list):
        raise BadRow(
            "malformed_row",
            f"'history' is {kind_of(value)}; expected a list of [user, assistant] pairs",
        )
    for i, pair in enumerate(value, 1):
        if not isinstance(pair, list) or len(pair) != 2:
            shape = f"a list of {len(pair)}" if isinstance(pair, list) else kind_of(pair)
            raise BadRow(
                "malformed_row", f"entry {i} of 'history' is {shape}; expected [user, assistant]"
            )
        for text in pair:
            text_of(text, f"a text in entry {i} of 'history'")
    return value
