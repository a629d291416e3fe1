"""Alpaca: instruction, input, output; earlier exchanges in history, a leading system turn in
system.
"""

from __future__ import annotations

from typing import ClassVar

from deita_tasks.exporting.base import Columns, DoesNotFit, Survey
from deita_tasks.exporting.jsonl import JsonLines
from deita_tasks.records import Conversation, Role


class Alpaca(JsonLines):
    """selected.jsonl with one exchange a row: the last one as instruction and output, the earlier
    ones as [user, assistant] in history.

    The user's text is whole in `instruction` and `input` is empty, unless the input row had an
    `input` that ends that text: then the two are parted again. A leading system turn stands in the
    column `system`. `system` and `history` are written where any row has one. Holds only
    conversations of (user, assistant) exchanges after at most one leading system turn with a text.
    """

    name: ClassVar[str] = "alpaca"
    own_columns: ClassVar[tuple[str, ...]] = ("instruction", "input", "output", "system", "history")
    optional_columns: ClassVar[tuple[str, ...]] = ("system", "history")

    def columns(self, conversation: Conversation, survey: Survey) -> Columns:
        system, exchanges = exchanges_of(conversation)
        history = [list(exchange) for exchange in exchanges[:-1]]
        instruction, output = exchanges[-1]
        extra, given = conversation.extra, conversation.extra.get("input")
        if isinstance(given, str) and given and instruction.endswith(f"\n{given}"):
            instruction = instruction[: -len(given) - 1]
            extra = {name: value for name, value in extra.items() if name != "input"}
        else:
            given = ""
        return Columns(
            {
                "instruction": instruction,
                "input": given,
                "output": output,
                "system": system,
                "history": history,
            },
            extra,
        )


def exchanges_of(conversation: Conversation) -> tuple[str, list[tuple[str, str]]]:
    """The leading system turn's text or "", and the (user, assistant) texts. Raises DoesNotFit for
    any other order of turns.
    """
    turns = list(conversation.turns)
    system = turns.pop(0).content if turns[0].role == "system" else ""
    first = len(conversation.turns) - len(turns) + 1
    if first == 2 and not system:
        raise DoesNotFit("turn 1 is a system turn without a text")
    expected: tuple[Role, Role] = ("user", "assistant")
    for i, turn in enumerate(turns):
        if turn.role != expected[i % 2]:
            raise DoesNotFit(
                f"turn {first + i} is of the role {turn.role} where {expected[i % 2]} was expected"
            )
    if not turns or len(turns) % 2:
        raise DoesNotFit("it does not end with an assistant turn")
    texts = [turn.content for turn in turns]
    return system, list(zip(texts[::2], texts[1::2], strict=True))
