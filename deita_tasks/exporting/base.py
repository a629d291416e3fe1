"""The base class of output formats, and what it hands to them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import pyarrow as pa

from deita_tasks.components import Component
from deita_tasks.conversations import MEDIA_COLUMNS, Conversation
from deita_tasks.errors import UsageError
from deita_tasks.exporting.arrow import SMALL_INTEGER, infer_type, merge_types
from deita_tasks.strict_json import JSON

SCORE_COLUMNS: dict[str, pa.DataType] = {
    "deita_id": pa.string(),
    "deita_evol_score": pa.float64(),
    "deita_rank": pa.int64(),
}

CUT_COLUMNS: dict[str, pa.DataType] = {"deita_cut_turns": pa.int64()}  # if rows were cut

LICENCE_COLUMNS = ("license", "licence")

OutputRow = dict[str, JSON]  # by the column's name


class ExportRow(NamedTuple):
    """A selected conversation with its evol score and its rank; None if it has none.

    `rank` is the 1-based position in evol-score order over the whole pool. cut_turns: the turns
    that were left out to fit the window of the training; None in a pool without such cuts.
    """

    conversation: Conversation
    evol_score: float | None
    rank: int | None
    cut_turns: int | None = None


class DoesNotFit(Exception):
    """The format cannot hold a conversation without loss; the message says what does not fit.

    Callers of this package see it as UsageError.
    """


class Columns(NamedTuple):
    """A conversation in a format's own columns, and the input's columns that stay beside them."""

    own: Mapping[str, JSON]
    extra: Mapping[str, JSON]


@dataclass
class Survey:
    """What all rows have in common, so that every row is written with the same columns.

    used_columns: the format's own columns that hold a value in any row. own_types, extra_types: the
    Arrow types of the format's own columns, as far as it asks for them, and of every input column.
    notes: what else a format has to know about all rows. tallies: how often each text occurs in the
    columns that the card counts. renamed, score_names: the output names of input columns and of
    SCORE_COLUMNS, and of CUT_COLUMNS if has_cuts.
    """

    rows: int = 0
    characters: int = 0
    used_columns: set[str] = field(default_factory=set)
    own_types: dict[str, pa.DataType] = field(default_factory=dict)
    extra_types: dict[str, pa.DataType] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)
    tallies: dict[str, Counter[str]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    score_names: dict[str, str] = field(default_factory=dict)
    has_cuts: bool = False

    def add(self, conversation: Conversation, columns: Columns) -> None:
        """Include one row: its size in characters, its columns and the types of their values."""
        self.rows += 1
        self.characters += sum(len(turn.content) for turn in conversation.turns)
        self.used_columns.update(name for name, value in columns.own.items() if value)
        for name, value in columns.extra.items():
            known_type = self.extra_types.get(name, pa.null())
            integer = pa.int64() if name in MEDIA_COLUMNS else SMALL_INTEGER
            inferred = infer_type(value, integer)
            self.extra_types[name] = merge_types(known_type, inferred)
            if name in self.tallies and isinstance(value, str):
                self.tallies[name][value] += 1

    def choose_names(self, own_columns: Iterable[str], scores: bool) -> None:
        """Choose names that do not clash with the input's columns.

        An input column with the name of one of `own_columns` becomes input_<name>. A score column
        with the name of an input column becomes <name>_2 and so on.
        """
        reserved = {*own_columns, *self.extra_types}
        for name in own_columns:
            if name in self.extra_types:
                self.renamed[name] = _prefixed_name(name, reserved)
                reserved.add(self.renamed[name])
        if not scores:
            return
        for name in (*SCORE_COLUMNS, *(CUT_COLUMNS if self.has_cuts else ())):
            self.score_names[name] = _numbered_name(name, reserved)
            reserved.add(self.score_names[name])

    def output_name(self, extra_column: str) -> str:
        """Return the output name of an input column."""
        return self.renamed.get(extra_column, extra_column)


def _prefixed_name(name: str, reserved: set[str]) -> str:
    """Return `name` with as many input_ before it as make it new."""
    while name in reserved:
        name = f"input_{name}"
    return name


def _numbered_name(name: str, reserved: set[str]) -> str:
    """Return `name` itself if it is free, else with the first of _2, _3, ... that is."""
    number = 1
    numbered = name
    while numbered in reserved:
        number += 1
        numbered = f"{name}_{number}"
    return numbered


class Exporter(Component):
    """Base class of output formats.

        class Text(JsonLines):  # of exporting/jsonl.py, which implements `write`
            name: ClassVar[str] = "text"  # its name in FORMATS
            own_columns: ClassVar[tuple[str, ...]] = ("text",)

            def to_columns(self, conversation: Conversation, survey: Survey) -> Columns:
                text = "\\n".join(turn.content for turn in conversation.turns)
                return Columns({"text": text}, conversation.extra)

    The fields are the format's options. `scores` adds the columns deita_id, deita_evol_score and
    deita_rank, and deita_cut_turns if rows were cut at a turn. If the input has a column of such a
    name, it is kept, and ours becomes deita_id_2.
    """

    name: ClassVar[str]  # in FORMATS
    own_columns: ClassVar[tuple[str, ...]]  # the columns that hold the conversation
    # Those of them that are left out of every row if they are empty in every row.
    optional_columns: ClassVar[tuple[str, ...]] = ()
    # Input columns whose values the card counts.
    tallied_columns: ClassVar[tuple[str, ...]] = (
        *("source", "dataset", "language", "lang"),
        *LICENCE_COLUMNS,
    )
    max_columns: ClassVar[float] = math.inf  # of the input

    scores: bool = True

    @abstractmethod
    def to_columns(self, conversation: Conversation, survey: Survey) -> Columns:
        """Return the conversation in the format's own columns.

        Rows are converted twice. The first time, `survey` covers the rows before this one, and the
        result is only surveyed; the second time it covers all rows. Raises DoesNotFit if the
        columns cannot hold the conversation without loss.
        """

    @abstractmethod
    def write(self, rows: Iterable[OutputRow], survey: Survey, folder: Path) -> list[Path]:
        """Write the output rows, in order, into the local `folder`. Return the files.

        rows: read once. survey: of all of them. Raises StorageError.
        """

    def export(self, rows: Iterable[ExportRow], folder: Path) -> list[Path]:
        """Write `rows`, in order, into the local `folder`, and return the files.

        `rows` is read twice and never held in memory as a whole: pass a list, or an object whose
        __iter__ starts again. All input columns are kept. Raises UsageError, before anything is
        written, for a conversation that the format cannot hold.
        """
        survey = self.survey(rows)
        output_rows = (self.output_row(row, survey) for row in rows)
        return self.write(output_rows, survey, folder)

    def survey(self, rows: Iterable[ExportRow]) -> Survey:
        """Read `rows` once and return what they have in common.

        Raises UsageError for a conversation that does not fit, or brings too many columns.
        """
        if iter(rows) is rows:
            raise TypeError(
                f"rows of type {type(rows).__name__} can be read only once: expected a list "
                "or an object whose __iter__ starts again"
            )
        survey = Survey(tallies={name: Counter() for name in self.tallied_columns})
        for row in rows:
            try:
                survey.add(row.conversation, self.to_columns(row.conversation, survey))
            except DoesNotFit as error:
                raise UsageError(self._explain_misfit(row.conversation, error)) from None
            survey.has_cuts |= row.cut_turns is not None
            if len(survey.extra_types) > self.max_columns:
                misfit = DoesNotFit(f"with it, there are over {self.max_columns:,} columns")
                raise UsageError(self._explain_misfit(row.conversation, misfit))
        survey.choose_names(self.own_columns, self.scores)
        return survey

    def _explain_misfit(self, conversation: Conversation, error: DoesNotFit) -> str:
        """Return which input row does not fit, why, and which formats hold it."""
        uri, row = conversation.source
        return (
            f"the output format {self.name} cannot hold row {row} of {uri or 'the pool'} "
            f"(id {conversation.id}): {error}; no output was written: choose messages or sharegpt, "
            "which hold every conversation (scores and vectors are kept in the store)"
        )

    def output_row(self, row: ExportRow, survey: Survey) -> OutputRow:
        """Return one output row: the format's columns, the input's, and the score columns.

        survey: of all rows, which decides on names and on columns that are empty everywhere.
        """
        own, extra = self.to_columns(row.conversation, survey)
        unused = set(self.optional_columns) - survey.used_columns
        output = {name: value for name, value in own.items() if name not in unused}
        for name, value in extra.items():
            output[survey.output_name(name)] = value
        scores = (row.conversation.id, row.evol_score, row.rank, row.cut_turns)
        for name, value in zip((*SCORE_COLUMNS, *CUT_COLUMNS), scores, strict=True):
            if name in survey.score_names:
                output[survey.score_names[name]] = value
        return output
