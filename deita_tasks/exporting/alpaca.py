"""Alpaca: instruction, input, output; optionally history and system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from deita_tasks.conversations import Conversation, Role
from deita_tasks.exporting.base import Columns, DoesNotFit, Survey
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.exporting.sharegpt import tools_text
from deita_tasks.strict_json import JSON

EXCHANGE: tuple[Role, Role] = ("user", "assistant")


class Alpaca(JsonLines):
    """selected.jsonl with the last exchange of a conversation as instruction and output.

    Earlier exchanges are [user, assistant] pairs in `history`, and a leading system turn is in
    `system`; both columns are written if any row has one, and so is `tools`. The user's whole text
    is the `instruction` and `input` is empty, unless the input row had them apart. Holds only
    conversations of (user, assistant) exchanges of text, after at most one leading system turn.
    """

    name: ClassVar[str] = "alpaca"
    own_columns: ClassVar[tuple[str, ...]] = (
        *("instruction", "input", "output"),
        *("system", "history", "tools"),
    )
    optional_columns: ClassVar[tuple[str, ...]] = ("system", "history", "tools")

    def to_columns(self, conversation: Conversation, survey: Survey) -> Columns:
        """Return all six columns; system is "" and history [] where there is none.

        Raises DoesNotFit for turns with more than text, and for any order but that of exchanges.
        """
        system, exchanges = split_exchanges(conversation)
        *history, (user_text, output) = exchanges
        instruction, input_text = _split_input(user_text, conversation.row)
        own: dict[str, JSON] = {
            "instruction": instruction,
            "input": input_text,
            "output": output,
            "system": system,
            "history": [list(exchange) for exchange in history],
            "tools": tools_text(conversation.tools),
        }
        return Columns(own, conversation.extra)


def _split_input(user_text: str, row: Mapping[str, JSON]) -> tuple[str, str]:
    """Return instruction and input as the row had them, see loading/alpaca.py."""
    for name in ("input", "context"):
        input_text = row.get(name)
        if isinstance(input_text, str) and user_text == f"{row.get('instruction')}\n{input_text}":
            return str(row["instruction"]), input_text
    return user_text, ""


class Exchanges(NamedTuple):
    """The leading system turn's text ("" if there is none), and the (user, assistant) texts."""

    system: str
    exchanges: list[tuple[str, str]]


def split_exchanges(conversation: Conversation) -> Exchanges:
    """Return the exchanges of a conversation. Raises DoesNotFit for any other order of turns."""
    turns = list(conversation.turns)
    if any(turn.fields for turn in turns):
        names = sorted({name for turn in turns for name in turn.fields})
        raise DoesNotFit(f"its turns hold {', '.join(names)} beside their text")
    system = ""
    first = 1  # the number of the first turn of an exchange
    if turns[0].role == "system":
        system = turns.pop(0).content
        first = 2
        if not system:
            raise DoesNotFit("turn 1 is a system turn without a text")
    for i, turn in enumerate(turns):
        expected = EXCHANGE[i % 2]
        if turn.role != expected:
            raise DoesNotFit(f"turn {first + i} has the role {turn.role}; expected {expected}")
    if not turns or len(turns) % 2:
        raise DoesNotFit("it does not end with an assistant turn")
    questions = [turn.content for turn in turns if turn.role == "user"]
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    return Exchanges(system, list(zip(questions, answers, strict=True)))
