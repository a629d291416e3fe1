"""Rows of evaluation files: as conversations are read, but also without an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple, Self

from deita_tasks.catalogue import INPUT_FORMATS
from deita_tasks.components import component_class
from deita_tasks.conversations import Quarantined, SourceRow, Turn
from deita_tasks.loading.base import BadRow, Row, RowFormat, check_turns, take_text
from deita_tasks.loading.folder import PoolFiles, find_pool
from deita_tasks.loading.pool import detect_file, quarantine
from deita_tasks.loading.reading import read_rows
from deita_tasks.strict_json import JSON

PROMPT_COLUMNS = (
    "prompt",
    "question",
    "instruction",
    "problem",
    "query",
    "input",
    "inputs",
    "text",
)


class PromptOnly(RowFormat):
    """A prompt without an answer, in one column."""

    name: ClassVar[str] = "prompt"
    expected: ClassVar[str] = " or ".join(PROMPT_COLUMNS)

    prompt: str = "prompt"

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        """Return a layout for each of PROMPT_COLUMNS: a row with several is read by the first."""
        return [cls(prompt=prompt) for prompt in PROMPT_COLUMNS]

    def required_columns(self) -> tuple[str, ...]:
        """Return the column of the prompt; whatever else a row has is left aside."""
        return (self.prompt,)

    def take_turns(self, columns: dict[str, JSON]) -> list[Turn]:
        """Return one user turn. Raises BadRow for a prompt that is no text."""
        return [Turn("user", take_text(columns, self.prompt))]


class EvaluationRow(NamedTuple):
    """The turns of a row of an evaluation file."""

    source: SourceRow
    turns: Sequence[Turn]


def find_evaluation_files(uris: Sequence[str]) -> PoolFiles:
    """Return the files that `uris` name. Raises InputError if there is none."""
    return find_pool(uris, _layouts())


def read_evaluation_rows(uri: str) -> Iterator[EvaluationRow | Quarantined]:
    """Yield every row of a file in order.

    Reads all formats of pools, and prompts without an answer. Raises InputError for a file of no
    known format, and EmptyFile if it has no rows.
    """
    file = detect_file(uri, _layouts(), require_match=True)
    for row in read_rows(uri, file.compression, file.container):
        yield _read_row(row, SourceRow(uri, row.number), file.format)


def _layouts() -> list[RowFormat]:
    """Return the layouts of all input formats, then those of a prompt alone.

    The first wins where a file matches several, so an answer is read where there is one.
    """
    classes: list[type[RowFormat]] = [
        component_class(INPUT_FORMATS, "format", name) for name in INPUT_FORMATS
    ]
    classes.append(PromptOnly)
    return [layout for format in classes for layout in format.layouts()]


def _read_row(row: Row, source: SourceRow, format: RowFormat) -> EvaluationRow | Quarantined:
    """Return the turns of a row, or the row as Quarantined.

    Unlike a row of a pool it needs no answer, only a user turn and some text.
    """
    if row.columns is None:
        return quarantine(row, source)
    try:
        for name in format.required_columns():
            if row.columns.get(name) is None:
                raise BadRow("missing_field", f"the column {name!r} is missing or null")
        turns = format.take_turns(dict(row.columns))
        check_turns(turns)
    except BadRow as problem:
        return quarantine(row._replace(problem=problem), source)
    return EvaluationRow(source, turns)
