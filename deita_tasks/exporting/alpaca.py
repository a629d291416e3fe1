"""Alpaca: instruction, input, output; earlier exchanges in history, a leading system turn in system."""

from __future__ import annotations

from typing import Any, ClassVar

from deita_tasks.exporting.base import DoesNotFit
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.records import Conversation, Role


class Alpaca(JsonLines):
    """selected.jsonl with one exchange a row: the last one as instruction and output, the earlier ones as [user, assistant] in history.

    The user's text is whole in `instruction`, and `input` is empty, since a conversation does not know where an input began. A leading
    system turn stands in the column `system`. `system` and `history` are written where any row has one. Holds
    only conversations of (user, assistant) exchanges after at most one leading system turn.
    """

    name: ClassVar[str] = "alpaca"
    own_columns: ClassVar[tuple[str, ...]] = ("instruction", "input", "output", "system", "history")
    optional_columns: ClassVar[tuple[str, ...]] = ("system", "history")

    def columns(self, conversation: Conversation) -> dict[str, Any]:
        system, exchanges = exchanges_of(conversation)
        instruction, output = exchanges[-1]
        return {
            "instruction": instruction,
            "input": "",
            "output": output,
            "system": system,
            "history": [list(pair) for pair in exchanges[:-1]],
        }


def exchanges_of(conversation: Conversation) -> tuple[str, list[tuple[str, str]]]:
    """The leading system turn's text or "", and the (user, assistant) texts. Raises DoesNotFit for any other order of turns."""
    turns = list(conversation.turns)
    system = turns.pop(0).content if turns[0].role == "system" else ""
    expected: tuple[Role, Role] = ("user", "assistant")
    for i, turn in enumerate(turns):
        if turn.role != expected[i % 2]:
            place = len(conversation.turns) - len(turns) + i + 1
            raise DoesNotFit(f"turn {place} is of the role {turn.role} where {expected[i % 2]} was expected")
    if not turns or len(turns) % 2:
        raise DoesNotFit("it does not end with an assistant turn")
    texts = [turn.content for turn in turns]
    return system, list(zip(texts[::2], texts[1::2], strict=True))
