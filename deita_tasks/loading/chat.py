"""Lists of turn objects, as the sharegpt and messages formats have them."""

from __future__ import annotations

from collections.abc import Mapping

from deita_tasks.conversations import (
    CALL_ROLES,
    CHAT_KEYS,
    CONTENT_PARTS,
    SHAREGPT_KEYS,
    Role,
    Turn,
    TurnKeys,
)
from deita_tasks.loading.base import BadRow, describe_type, list_names, require_text
from deita_tasks.loading.content import Content, parse_content, split_results
from deita_tasks.loading.json_text import parse
from deita_tasks.loading.roles import normalize, parse_role
from deita_tasks.strict_json import JSON


def parse_turns(value: JSON, column: str) -> list[Turn]:
    """Parse the value of `column`, a list of turn objects or its JSON text, into turns in order.

    Raises BadRow, which names the column and the number of the turn, from 1 on.
    """
    if isinstance(value, str):
        value = _parse_list_text(value, column)
    if not isinstance(value, list):
        kind = describe_type(value)
        raise BadRow("malformed_row", f"{column!r} is {kind}; expected a list of turns")
    turns = []
    for number, whole in enumerate(value, 1):
        label = f"turn {number} of {column!r}"
        for item in split_results(whole):
            turns.append(_parse_turn(item, label))
    return turns


def _parse_list_text(text: str, column: str) -> JSON:
    """Return the value of JSON text in `column`. Raises BadRow, which names the column."""
    try:
        return parse(text)
    except BadRow as problem:
        detail = f"the text in {column!r} is {problem.detail}; expected a JSON list of turns"
        raise BadRow(problem.reason, detail) from None


def _parse_turn(turn: JSON, label: str) -> Turn:
    """Return a turn object as a Turn. label: its place, for messages. Raises BadRow.

    What its fields hold beside role and text stays in Turn.fields, unless it is null.
    """
    if not isinstance(turn, dict):
        kind = describe_type(turn)
        raise BadRow("malformed_row", f"{label} is {kind}; expected an object")
    keys = _keys_of(turn)
    if keys.role not in turn:
        detail = f"{label} has neither 'from' nor 'role'; it has {list_names(turn)}"
        raise BadRow("missing_field", detail)
    role_name = require_text(turn[keys.role], f"{keys.role!r} of {label}")
    role = parse_role(role_name, label)
    fields = {}
    for key, value in turn.items():
        if key not in keys and value is not None:
            fields[key] = value
    if role == "system" and fields.get(CHAT_KEYS.role) == "developer":
        role = "developer"  # ShareGPT has no name of its own for it
        del fields[CHAT_KEYS.role]
    content = turn.get(keys.text)
    if not content and isinstance(content, list | None) and _says_or_calls(fields):
        return Turn(role, "", fields)
    if keys.text not in turn:
        raise BadRow("missing_field", f"{label} has no {keys.text!r}")
    content_label = f"{keys.text!r} of {label}"
    if normalize(role_name) in CALL_ROLES:
        text = require_text(content, content_label)
        return _parse_call(text, fields)
    parsed = parse_content(content, content_label)
    return _with_content(role, parsed, fields)


def _keys_of(turn: Mapping[str, JSON]) -> TurnKeys:
    """Return the keys that a turn uses: pools mix one format's column with the other's keys."""
    if turn.get(CHAT_KEYS.role) is None:
        return SHAREGPT_KEYS if SHAREGPT_KEYS.role in turn else CHAT_KEYS
    is_chat = CHAT_KEYS.text in turn or turn.get(SHAREGPT_KEYS.role) is None
    return CHAT_KEYS if is_chat else SHAREGPT_KEYS


def _says_or_calls(fields: Mapping[str, JSON]) -> bool:
    """Return whether a turn without content calls a tool or reasons, as chat APIs have it."""
    names = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
    return any(fields.get(name) for name in names)


def _parse_call(text: str, fields: dict[str, JSON]) -> Turn:
    """Return the turn whose text is a call: the JSON of one or several, or another notation."""
    if not text or "tool_calls" in fields:
        return Turn("assistant", "", fields)
    as_text: dict[str, JSON] = {**fields, "function_call": text}
    try:
        value = parse(text)
    except BadRow:
        return Turn("assistant", "", as_text)
    functions = value if isinstance(value, list) else [value]
    calls: list[JSON] = []
    for function in functions:
        if not isinstance(function, dict):
            return Turn("assistant", "", as_text)
        if not isinstance(function.get("name"), str):
            return Turn("assistant", "", as_text)
        calls.append({"type": "function", "function": function})
    return Turn("assistant", "", {**fields, "tool_calls": calls})


def _with_content(role: Role, content: Content, fields: dict[str, JSON]) -> Turn:
    """Return the turn; reasoning and calls in its content become fields that it does not have."""
    if content.parts:
        fields[CONTENT_PARTS] = content.parts
    if content.reasoning:
        fields.setdefault("reasoning_content", content.reasoning)
    if content.calls:
        fields.setdefault("tool_calls", content.calls)
    if content.is_tool_output:
        role = "tool"
    return Turn(role, content.text, fields)
