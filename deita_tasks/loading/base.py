"""The base class of input formats, and what the containers hand to it.

A file is read in three independent steps: compression (bytes to bytes), container (bytes to rows
of named columns) and format (a row to turns). Only the format knows what a conversation looks like.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, NamedTuple, Self

from deita_tasks.components import Component
from deita_tasks.conversations import Conversation, QuarantineReason, SourceRow, Turn
from deita_tasks.errors import InputError
from deita_tasks.loading.context import take_context
from deita_tasks.strict_json import JSON

# Longer rows are skipped without being held in memory, so that no input can exhaust it.
MAX_ROW_BYTES = 16 << 20
MAX_RAW_CHARACTERS = 16 << 10  # of a bad row, kept in the quarantine
MAX_RAW_BYTES = 4 * MAX_RAW_CHARACTERS  # a UTF-8 character has at most 4 bytes
MAX_DEPTH = 100  # levels of nesting in one row; Python's own JSON writer gives up at about 1,000


class BadRow(Exception):
    """A row that cannot become a Conversation. Callers of this package see it as Quarantined."""

    def __init__(self, reason: QuarantineReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: QuarantineReason = reason
        self.detail = detail


class BrokenFile(InputError):
    """The file ends early, or it cannot be split into rows any further.

    This is an error of the whole file, not of one row, because what follows is unknown.
    """


class Row(NamedTuple):
    """A row of a container.

    number: 1-based; the line in line-based files, the record elsewhere. columns: the row's values,
    whose texts have no NUL and no lone surrogate; None for a bad row. raw: the row's bytes in the
    file; None if the container does not store rows as text (Parquet). problem: why `columns` is
    None.
    """

    number: int
    columns: dict[str, JSON] | None
    raw: bytes | None
    problem: BadRow | None = None


class RowFormat(Component):
    """Base class of input formats: where the columns of a row hold a conversation.

        class QuestionAnswer(RowFormat):
            name: ClassVar[str] = "question_answer"  # its name in FORMATS
            expected: ClassVar[str] = "question, answer"

            question: str = "question"
            answer: str = "answer"

            def required_columns(self) -> tuple[str, ...]:
                return (self.question, self.answer)

            def take_turns(self, columns: dict[str, JSON]) -> list[Turn]:
                question = take_text(columns, self.question)
                answer = take_text(columns, self.answer)
                return [Turn("user", question), Turn("assistant", answer)]

    The fields are the names of the columns, so an instance is one layout of the format. Override
    `layouts` if the format occurs with several sets of names.
    """

    name: ClassVar[str]  # in FORMATS
    expected: ClassVar[str]  # the columns, in words, for error messages

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        """Return every known layout, the most common one first."""
        return (cls(),)

    @abstractmethod
    def required_columns(self) -> tuple[str, ...]:
        """Return the columns that every row of this layout has."""

    @abstractmethod
    def take_turns(self, columns: dict[str, JSON]) -> list[Turn]:
        """Return the turns of a row, and remove the columns that hold them from `columns`.

        Columns with a system prompt or tools are taken by the caller; the remaining ones become the
        conversation's `extra`. The required columns are present and not null. Raises BadRow.
        """

    def without_last(self, columns: Mapping[str, JSON], turns: int) -> Mapping[str, JSON] | None:
        """Return a row without its last `turns` turns; None if the layout cannot leave them out."""
        return None

    def matches(self, columns: Collection[str]) -> bool:
        """Return whether a row with these non-null columns is of this layout."""
        return all(name in columns for name in self.required_columns())

    def conversation(
        self, columns: Mapping[str, JSON], source: SourceRow, needs_answer: bool = True
    ) -> Conversation:
        """Return the Conversation of a row; what the format does not read stays in its `extra`.

        Raises BadRow for a missing column, for turns that are no conversation or lack an answer
        that is needed, and for an answer that a label of KTO rejects.
        """
        for name in self.required_columns():
            if columns.get(name) is None:
                state = "is null" if name in columns else "is missing"
                present = list_names(columns)
                raise BadRow("missing_field", f"the column {name!r} {state}; the row has {present}")
        extra = dict(columns)
        turns, tools = take_context(self.take_turns(extra), extra)
        check_turns(turns)
        conversation = Conversation(tuple(turns), source, extra, tools, columns)
        if needs_answer and not conversation.pairs:
            raise BadRow("no_answer", explain_no_answer(columns))
        label = self.rejection_label(columns)
        if label is not None:
            detail = f"{label!r} is false: the answer is marked as one that a model shall not give"
            raise BadRow("rejected_answer", f"{detail} (KTO); select from the other rows")
        return conversation

    def rejection_label(self, columns: Mapping[str, JSON]) -> str | None:
        """Return the column that marks the answer of a row as undesirable, if one does.

        These are the labels of KTO, as TRL and LLaMA-Factory have them.
        """
        if columns.get("kto_tag") is False:
            return "kto_tag"
        has_completion = "completion" in self.required_columns()
        return "label" if has_completion and columns.get("label") is False else None


def check_turns(turns: Sequence[Turn]) -> None:
    """Raise BadRow unless `turns` have a text and a user turn."""
    if not turns:
        raise BadRow("empty_conversation", "no turns")
    if not any(turn.text.strip() for turn in turns):
        raise BadRow("empty_conversation", "no text in any turn")
    roles = {turn.role for turn in turns}
    if "user" not in roles:
        present = ", ".join(sorted(roles))
        raise BadRow("no_user_turn", f"the roles are {present}; expected a user turn")


def explain_no_answer(columns: Mapping[str, JSON]) -> str:
    """Return the detail of a row in which the assistant answers no user turn."""
    detail = "the assistant answers no user turn; expected at least one answer"
    if columns.keys() >= {"chosen", "rejected"}:
        return (
            f"{detail}. The row has 'chosen' and 'rejected', as in pools of preferences: to select "
            "from it, append the chosen answer to the turns"
        )
    return detail


def row_too_long(size: int) -> BadRow:
    """Return the problem of a row of `size` bytes."""
    return BadRow("too_long", f"the row is {size:,} bytes long; at most {MAX_ROW_BYTES:,} are read")


def not_utf8(error: UnicodeDecodeError, unit: str) -> BadRow:
    """Return the problem of bytes that UTF-8 cannot decode; `unit` is what they are a part of."""
    byte = error.object[error.start]
    detail = f"byte {error.start + 1} of {unit}, 0x{byte:02x}, is not UTF-8"
    return BadRow("invalid_utf8", detail)


def check_no_nul(raw: bytes) -> None:
    """Raise BadRow if the row `raw` contains a NUL byte."""
    if b"\0" in raw:
        raise BadRow("nul_byte", f"a NUL byte at byte {raw.index(0) + 1} of the row")


def list_names(names: Collection[str], limit: int = 12) -> str:
    """Return the first `limit` of `names` for a message, long ones shortened to 40 characters."""
    if not names:
        return "no columns"
    shortened = [name if len(name) <= 40 else f"{name[:40]}..." for name in list(names)[:limit]]
    text = ", ".join(repr(name) for name in shortened)
    hidden = len(names) - limit
    return f"{text} and {hidden} more" if hidden > 0 else text


def require_text(value: JSON, label: str) -> str:
    """Return `value` if it is a string; `label` names it in the message. Raises BadRow."""
    if not isinstance(value, str):
        raise BadRow("not_text", f"{label} is {describe_type(value)}; expected a string")
    return value


def take_text(columns: dict[str, JSON], name: str) -> str:
    """Remove the column `name` and return its value, a string. Raises BadRow."""
    return require_text(columns.pop(name), repr(name))


def describe_type(value: JSON) -> str:
    """Return the JSON type of `value`, for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"
