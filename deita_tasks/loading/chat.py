"""Lists of turn objects, as the sharegpt and messages formats have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deita_tasks.loading.base import BadRow, describe_type, require_text
from deita_tasks.loading.json_text import parse
from deita_tasks.records import CHAT_KEYS, SHAREGPT_KEYS, TURN_FIELDS, Role, Turn, TurnKeys
from deita_tasks.strict_json import JSON

ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
}
# Names that are more specific than the role. They are kept in TURN_FIELDS.
SPECIFIC_ROLES: dict[str, Role] = {
    "developer": "system",  # OpenAI's later name
    "prompter": "user",  # OASST
    "chatgpt": "assistant",  # ShareGPT's dumps name the product: chatgpt, bing, bard
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",  # Gemini and Gemma
    "bot": "assistant",
    "function_call": "assistant",  # Glaive and its successors: the assistant's turn is a call
    "tool_call": "assistant",
    "function": "tool",  # OpenAI's earlier name
    "function_response": "tool",
    "tool_response": "tool",
    "observation": "tool",
    "ipython": "tool",  # Llama 3.1
}

TurnFields = Mapping[str, JSON] | None


class ChatTurns(NamedTuple):
    """The turns of a row, and for each turn what it holds beside role and text (None: nothing)."""

    turns: list[Turn]
    fields: list[TurnFields]


def parse_turns(value: JSON, column: str) -> ChatTurns:
    """Parse the value of `column`, a list of turn objects or its JSON text. Raises BadRow."""
    if isinstance(value, str):
        value = _parse_list_text(value, column)
    if not isinstance(value, list):
        kind = describe_type(value)
        raise BadRow("malformed_row", f"{column!r} is {kind}; expected a list of turns")
    parsed = ChatTurns([], [])
    for number, item in enumerate(value, 1):
        turn, fields = _parse_turn(item, f"turn {number} of {column!r}")
        parsed.turns.append(turn)
        parsed.fields.append(fields)
    return parsed


def _parse_list_text(text: str, column: str) -> JSON:
    try:
        return parse(text)
    except BadRow as problem:
        detail = f"the text in {column!r} is {problem.detail}; expected a JSON list of turns"
        raise BadRow(problem.reason, detail) from None


def _parse_turn(turn: JSON, label: str) -> tuple[Turn, TurnFields]:
    if not isinstance(turn, dict):
        raise BadRow("malformed_row", f"{label} is {describe_type(turn)}; expected an object")
    keys = _keys_of(turn)
    if keys.role not in turn:
        raise BadRow("missing_field", f"{label} has neither 'from' nor 'role'")
    role_name = require_text(turn[keys.role], f"{keys.role!r} of {label}")
    role, is_specific = _parse_role(role_name, label)
    fields = {key: value for key, value in turn.items() if key not in keys and value is not None}
    if is_specific:
        fields[keys.role] = role_name
    content = turn.get(keys.text)
    if content is None and _calls_tool(fields):
        return Turn(role, ""), fields
    if keys.text not in turn:
        raise BadRow("missing_field", f"{label} has no {keys.text!r}")
    return Turn(role, _join_text(content, f"{keys.text!r} of {label}")), fields or None


def _keys_of(turn: Mapping[str, JSON]) -> TurnKeys:
    """Return the keys that a turn uses: pools mix one format's column with the other's keys."""
    if turn.get(SHAREGPT_KEYS.role) is not None or CHAT_KEYS.role not in turn:
        return SHAREGPT_KEYS
    return CHAT_KEYS


def _parse_role(name: str, label: str) -> tuple[Role, bool]:
    """Return the role that `name` stands for, and whether `name` is more specific than the role."""
    normalized = name if name in ROLES else name.strip().lower()
    if normalized in ROLES:
        return ROLES[normalized], False
    if normalized in SPECIFIC_ROLES:
        return SPECIFIC_ROLES[normalized], True
    role_names = ", ".join([*ROLES, *SPECIFIC_ROLES])
    detail = f"{label} has the role {name[:40]!r}; expected one of {role_names}"
    raise BadRow("unknown_role", detail)


def _calls_tool(fields: Mapping[str, JSON]) -> bool:
    """Return whether the turn calls a tool; chat APIs leave the content of such a turn null."""
    return bool(fields.get("tool_calls") or fields.get("function_call"))


def _join_text(content: JSON, label: str) -> str:
    """Return a text, or the concatenation of a list of text parts, as chat templates join them."""
    if not isinstance(content, list):
        return require_text(content, label)
    if not content:
        raise BadRow("not_text", f"{label} is an empty list; expected a string")
    return "".join(_part_text(part, label) for part in content)


def _part_text(part: JSON, label: str) -> str:
    """Return the text of {"type": "text", "text": ...}; null values beside these are allowed."""
    values = part if isinstance(part, dict) else {}
    present = {key: value for key, value in values.items() if value is not None}
    kind, text = present.get("type"), present.get("text")
    if present.keys() == {"type", "text"} and kind == "text" and isinstance(text, str):
        return text
    described = kind if isinstance(kind, str) else describe_type(part)
    detail = f"{label} is a list with {described!r:.40}; expected only parts of type 'text'"
    raise BadRow("not_text", detail)


def store_turn_fields(columns: dict[str, JSON], fields: Sequence[TurnFields]) -> None:
    """Add the column TURN_FIELDS if any turn holds more than role and text."""
    if not any(fields):
        return
    name = TURN_FIELDS
    while name in columns:
        name += "_"
    columns[name] = fields
