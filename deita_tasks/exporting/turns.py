"""A conversation as a list of turn objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from deita_tasks.records import (
    CHAT_KEYS,
    ROLES,
    SHAREGPT_KEYS,
    TURN_FIELDS,
    Conversation,
    Role,
    TurnKeys,
)
from deita_tasks.strict_json import JSON

CHAT_ROLE_NAMES: dict[Role, str] = {role: role for role in ROLES}

TurnFields = Mapping[str, JSON] | None


class TurnObjects(NamedTuple):
    """The turns as JSON objects, and the input's columns that stay beside them."""

    turns: list[dict[str, JSON]]
    extra: Mapping[str, JSON]


def to_turn_objects(
    conversation: Conversation,
    keys: TurnKeys = CHAT_KEYS,
    role_names: Mapping[Role, str] = CHAT_ROLE_NAMES,
) -> TurnObjects:
    """Return the turns as objects with `keys`.

    What the input's turns held beside role and text is put back into them, so that tool calls are
    in their turn again. If that would hide a text or a role, TURN_FIELDS stays a column.
    """
    turns: list[dict[str, JSON]] = [
        {keys.role: role_names[turn.role], keys.text: turn.content} for turn in conversation.turns
    ]
    fields = _restorable_fields(conversation, keys)
    if fields is None:
        return TurnObjects(turns, conversation.extra)
    for turn, turn_fields in zip(turns, fields, strict=True):
        turn.update(turn_fields or {})
    extra = {name: value for name, value in conversation.extra.items() if name != TURN_FIELDS}
    return TurnObjects(turns, extra)


def _restorable_fields(conversation: Conversation, keys: TurnKeys) -> list[TurnFields] | None:
    """Return the column TURN_FIELDS, or None if loading would not read the same turns again."""
    column = conversation.extra.get(TURN_FIELDS)
    if not isinstance(column, list) or len(column) != len(conversation.turns) or not any(column):
        return None
    fields = [item for item in column if item is None or _is_restorable(item, keys)]
    return fields if len(fields) == len(column) else None


def _is_restorable(fields: JSON, keys: TurnKeys) -> bool:
    if not isinstance(fields, dict) or not fields or None in fields.values():
        return False
    hiding = {keys.text}
    if keys != SHAREGPT_KEYS:  # loading takes "from" for the role wherever it occurs
        hiding.add(SHAREGPT_KEYS.role)
    return not hiding & fields.keys() and isinstance(fields.get(keys.role, ""), str)
