"""What every output format is."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import pyarrow as pa

from deita_tasks.components import Component
from deita_tasks.errors import UsageError
from deita_tasks.exporting.arrow import arrow_type, merge
from deita_tasks.records import Conversation

if TYPE_CHECKING:
    from deita_tasks.manifest import Manifest

ADDED: dict[str, pa.DataType] = {
    "deita_id": pa.string(),
    "deita_evol_score": pa.float64(),
    "deita_rank": pa.int64(),
}


class ExportRow(NamedTuple):
    """A selected conversation; `rank` is its 1-based position in evol-score order over the whole
    pool. None where there is none.
    """

    conversation: Conversation
    evol_score: float | None
    rank: int | None


class DoesNotFit(Exception):
    """A conversation that a format cannot hold without loss; the message says which part, and never
    leaves this folder.
    """


class Columns(NamedTuple):
    """A conversation in a format's own columns, and the input's columns that stay beside them."""

    own: dict[str, Any]
    extra: Mapping[str, Any]


@dataclass
class Survey:
    """What the first reading of the rows found, so that every row of the second is written with the
    same columns.
    """

    rows: int = 0
    characters: int = 0
    used: set[str] = field(
        default_factory=set
    )  # the format's own columns that hold anything in any row
    types: dict[str, pa.DataType | None] = field(
        default_factory=dict
    )  # the input's columns; None where only JSON text can hold them
    notes: set[str] = field(default_factory=set)  # what else a format must know of all rows
    values: dict[str, Counter[str]] = field(
        default_factory=dict
    )  # how often each text stands in the columns that the card tells of
    renamed: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)

    def see(self, conversation: Conversation, columns: Columns) -> None:
        """Take in one row."""
        self.rows += 1
        self.characters += sum(len(turn.content) for turn in conversation.turns)
        self.used.update(name for name, value in columns.own.items() if value)
        for name, value in columns.extra.items():
            self.types[name] = merge(self.types.get(name, pa.null()), arrow_type(value))
            if name in self.values and isinstance(value, str):
                self.values[name][value] += 1

    def settle_names(self, own: Iterable[str], scores: bool) -> None:
        """An input column that bears a name the format needs becomes input_<name>; an added one
        gives way to the input's.
        """
        taken = {*own, *self.types}
        for name in own:
            if name in self.types:
                self.renamed[name] = free_name(
                    (f"{'input_' * n}{name}" for n in range(1, len(taken) + 2)), taken
                )
        for name in ADDED if scores else ():
            self.added[name] = free_name(
                (name, *(f"{name}_{n}" for n in range(2, len(taken) + 3))), taken
            )


def free_name(candidates: Iterable[str], taken: set[str]) -> str:
    """The first of `candidates` that is not `taken`; it is taken from then on."""
    name = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(name)
    return name


class Exporter(Component):
    """Writes the selected conversations. Its fields are its options.

    scores: add the columns deita_id, deita_evol_score and deita_rank. An input column of such a
    name is kept as it is, and ours is then called deita_id_2 and so on.
    """

    name: ClassVar[str]  # in FORMATS
    own_columns: ClassVar[tuple[str, ...]]  # every column of the format that holds the conversation
    optional_columns: ClassVar[
        tuple[str, ...]
    ] = ()  # those of them that are written in every row or, where no row needs them, in none
    tallied_columns: ClassVar[tuple[str, ...]] = ()  # input columns whose values are counted

    scores: bool = True

    @abstractmethod
    def columns(self, conversation: Conversation, survey: Survey) -> Columns:
        """The conversation in the format's own columns. `survey` is of the rows up to this one in
        the first reading, of all in the second. Raises DoesNotFit where the columns cannot hold the
        conversation without loss.
        """

    @abstractmethod
    def write(
        self,
        rows: Iterable[dict[str, Any]],
        survey: Survey,
        folder: Path,
        manifest: Manifest | None,
    ) -> list[Path]:
        """Writes the finished `rows`, in their order, into `folder`. Returns the files."""

    def export(
        self, rows: Iterable[ExportRow], folder: Path, manifest: Manifest | None = None
    ) -> list[Path]:
        """Writes `rows`, in their order, into the local `folder`, and returns the files written.

        `rows` are read twice: a list, or an object whose __iter__ starts again; they are never all
        held in memory. `manifest` is what the card of a dataset is written from. Every input column
        is kept. Raises UsageError for a conversation that the format cannot hold, before anything
        is written.
        """
        if iter(rows) is rows:
            raise TypeError(
                f"rows of type {type(rows).__name__} can be read only once: expected a list "
                "or an object whose __iter__ starts again"
            )
        survey = self.survey(rows)
        return self.write((self.finished(row, survey) for row in rows), survey, folder, manifest)

    def survey(self, rows: Iterable[ExportRow]) -> Survey:
        """Reads `rows` once: which columns there are. Raises UsageError for a conversation that
        does not fit.
        """
        survey = Survey(values={name: Counter() for name in self.tallied_columns})
        for conversation, _, _ in rows:
            try:
                survey.see(conversation, self.columns(conversation, survey))
            except DoesNotFit as error:
                uri, row = conversation.source
                raise UsageError(
                    f"the output format {self.name} cannot hold row {row} of "
                    f"{uri or 'the pool'} (id {conversation.id}): {error}; "
                    "nothing was written: choose messages or sharegpt, which hold every "
                    "conversation; what was computed is kept"
                ) from None
        survey.settle_names(self.own_columns, self.scores)
        return survey

    def finished(self, row: ExportRow, survey: Survey) -> dict[str, Any]:
        """One output row: the format's columns, then the input's, then the added ones."""
        own, extra = self.columns(row.conversation, survey)
        finished = {
            name: own[name]
            for name in own
            if name in survey.used or name not in self.optional_columns
        }
        finished.update((survey.renamed.get(name, name), value) for name, value in extra.items())
        added = {
            "deita_id": row.conversation.id,
            "deita_evol_score": row.evol_score,
            "deita_rank": row.rank,
        }
        finished.update(
            (survey.added[name], value) for name, value in added.items() if name in survey.added
        )
        return finished
