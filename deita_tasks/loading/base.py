"""What every format is, and what the containers hand to it.

A file is read in three steps that know nothing of one another: compression (bytes to bytes),
container (bytes to rows of named columns), format (a row to turns). Only the last knows what a
conversation looks like.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

from deita_tasks.components import Component
from deita_tasks.errors import InputError
from deita_tasks.records import Conversation, QuarantineReason, SourceRow, Turn

MAX_ROW = (
    16 << 20
)  # bytes of one row; what is longer is skipped without being held, so no input can fill the memory
MAX_RAW = 16 << 10  # characters of a bad row that quarantine keeps
KEPT = 4 * MAX_RAW  # bytes that hold as many characters
MAX_DEPTH = 100  # levels of nesting in one row; Python's own JSON writer gives up at about 1,000

Columns = Mapping[str, Any]


class BadRow(Exception):
    """A row that cannot become a Conversation. Never leaves this package: it ends as Quarantined."""

    def __init__(self, reason: QuarantineReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: QuarantineReason = reason
        self.detail = detail


class BrokenFile(InputError):
    """The file breaks off, or cannot be told apart into rows from here on: what follows is unknown,
    so it is no matter of one row.
    """


class Row(NamedTuple):
    """A row of a container. `number` is 1-based: the line in files of lines, the record elsewhere.

    columns: the row's values, as JSON values without NUL or lone surrogate in any text; None for a
    row that has no such values. raw: the row as it stands in the file; None where the file holds no
    text of it (Parquet). problem: why `columns` is None.
    """

    number: int
    columns: dict[str, Any] | None
    raw: bytes | None
    problem: BadRow | None = None


def too_long(size: int) -> BadRow:
    """What is the matter with a row of `size` bytes."""
    return BadRow("too_long", f"the row is {size:,} bytes long; at most {MAX_ROW:,} are read")


class RowFormat(Component):
    """How a row's columns hold a conversation. Its fields are the names of the columns, so one
    instance is one layout.
    """

    name: ClassVar[str]  # in FORMATS
    expected: ClassVar[str]  # the columns, in words, for messages

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        """Every layout that is known, the commonest first."""
        return (cls(),)

    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """The columns without which a row is not of this layout."""

    @abstractmethod
    def turns(self, columns: dict[str, Any]) -> list[Turn]:
        """The turns of a row. Takes the columns that they hold out of `columns`; what is left
        becomes `extra`. Raises BadRow.
        """

    def fits(self, names: Collection[str]) -> bool:
        """Whether a row whose non-null columns are `names` is of this layout."""
        return all(name in names for name in self.needs())

    def conversation(self, columns: Columns, source: SourceRow) -> Conversation:
        """The Conversation of a row. Raises BadRow."""
        for name in self.needs():
            if columns.get(name) is None:
                state = "is null" if name in columns else "is missing"
                raise BadRow(
                    "missing_field", f"the column {name!r} {state}; the row has {listed(columns)}"
                )
        extra = dict(columns)
        turns = self.turns(extra)
        if not any(turn.content.strip() for turn in turns):
            raise BadRow("empty_conversation", "no text in any turn" if turns else "no turns")
        if not any(turn.role == "user" for turn in turns):
            raise BadRow(
                "no_user_turn",
                f"the roles are {', '.join(sorted({turn.role for turn in turns}))}; "
                "expected a user turn",
            )
        return Conversation(tuple(turns), source, extra)


def listed(names: Collection[str], most: int = 12) -> str:
    """`names` for a message: the first of them, cut short where they are long."""
    shown = ", ".join(
        repr(name if len(name) <= 40 else name[:40] + "...") for name in list(names)[:most]
    )
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "no columns"


def text_of(value: Any, what: str) -> str:
    """`value` if it is a text. Raises BadRow."""
    if not isinstance(value, str):
        raise BadRow("not_text", f"{what} is {kind_of(value)}; expected a string")
    return value


def kind_of(value: Any) -> str:
    """The JSON type of `value`, for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return (
        "a string"
        if isinstance(value, str)
        else "a list"
        if isinstance(value, list)
        else "an object"
    )
