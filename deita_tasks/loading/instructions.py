"""Pools that are read for their instructions: rows need no answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Self

from deita_tasks.conversations import Turn
from deita_tasks.loading import load_layouts
from deita_tasks.loading.alpaca import Alpaca
from deita_tasks.loading.base import RowFormat, take_text
from deita_tasks.loading.chat import parse_turns
from deita_tasks.loading.evaluation_rows import PROMPT_COLUMNS
from deita_tasks.loading.pool import PoolFile, detect_file
from deita_tasks.strict_json import JSON


class BareInstruction(Alpaca):
    """Alpaca without its output."""

    name: ClassVar[str] = "instruction"
    expected: ClassVar[str] = "instruction (and input, history)"

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        return (cls(),)

    def required_columns(self) -> tuple[str, ...]:
        return (self.instruction,)

    def take_turns(self, columns: dict[str, JSON]) -> list[Turn]:
        columns[self.output] = ""
        return super().take_turns(columns)[:-1]


class BarePrompt(RowFormat):
    """A prompt without an answer: a text, or a list of {role, content} as in TRL's data sets."""

    name: ClassVar[str] = "prompt"
    # Not `text`: files of plain texts have it.
    columns: ClassVar[tuple[str, ...]] = tuple(
        name for name in PROMPT_COLUMNS if name not in ("instruction", "text")
    )
    expected: ClassVar[str] = " or ".join(columns)

    prompt: str = "prompt"

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        return [cls(prompt=prompt) for prompt in cls.columns]

    def required_columns(self) -> tuple[str, ...]:
        return (self.prompt,)

    def take_turns(self, columns: dict[str, JSON]) -> list[Turn]:
        if isinstance(columns[self.prompt], list):
            return parse_turns(columns.pop(self.prompt), self.prompt)
        return [Turn("user", take_text(columns, self.prompt))]


def instruction_layouts(format: str = "auto") -> list[RowFormat]:
    """Return the layouts of `format`; for "auto" all, and those without an answer."""
    layouts = load_layouts(format)
    if format == "auto":
        layouts += [*BareInstruction.layouts(), *BarePrompt.layouts()]
    return layouts


def open_instructions(uri: str, format: str = "auto") -> PoolFile:
    """Return a file whose rows need no answer, like `open_pool`."""
    file = detect_file(uri, instruction_layouts(format), require_match=format == "auto")
    return replace(file, needs_answer=False)
