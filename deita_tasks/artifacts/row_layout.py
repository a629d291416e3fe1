"""How an input row held its conversation, without its texts a second time.

A pool stores the turns of a row, and its other columns. To give the row back as it came, it also
stores the columns that held the turns, in which each longer text of a turn is a reference to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.strict_json import JSON

MIN_CHARACTERS = 24  # a shorter text is stored as it is
REFERENCE = "\0"  # the one key of a reference; loading refuses this character in every text


def layout_of(conversation: Conversation) -> str | None:
    """Return the layout of a conversation's row as JSON text; None if it came from no row.

    It holds the columns' order, and those that are not `extra`, with references to the turns in
    place of long texts, which the pool stores anyway.
    """
    row = conversation.row
    if not row:
        return None
    places = {}
    for number, turn in enumerate(conversation.turns):
        if len(turn.content) >= MIN_CHARACTERS:
            places[turn.content] = number
    own = {}
    for name, value in row.items():
        if name not in conversation.extra:
            own[name] = _refer(value, places)
    layout = {"columns": list(row), "own": own}
    return json.dumps(layout, ensure_ascii=False, separators=(",", ":"))


def restore_row(
    layout: str | None, turns: Sequence[Turn], extra: Mapping[str, JSON]
) -> dict[str, JSON]:
    """Return the row that `layout_of` described, as it came; {} without a layout."""
    if layout is None:
        return {}
    fields = json.loads(layout)
    own = fields["own"]
    row = {}
    for name in fields["columns"]:
        if name in own:
            row[name] = _resolve(own[name], turns)
        else:
            row[name] = extra[name]
    return row


def _refer(value: JSON, places: Mapping[str, int]) -> JSON:
    """Return `value` with a reference in place of each text of a turn. places: turns by text."""
    if isinstance(value, str):
        return {REFERENCE: places[value]} if value in places else value
    if isinstance(value, list):
        return [_refer(item, places) for item in value]
    if isinstance(value, dict):
        return {name: _refer(item, places) for name, item in value.items()}
    return value


def _resolve(value: JSON, turns: Sequence[Turn]) -> JSON:
    """Return `value` with the text of a turn in place of each reference."""
    if isinstance(value, list):
        return [_resolve(item, turns) for item in value]
    if isinstance(value, dict):
        number = value.get(REFERENCE)
        if isinstance(number, int):
            return turns[number].content
        return {name: _resolve(item, turns) for name, item in value.items()}
    return value
