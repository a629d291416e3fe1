"""A conversation as a list of turn objects."""

from __future__ import annotations

import json
from collections.abc import Mapping

from deita_tasks.conversations import (
    CHAT_KEYS,
    CONTENT_PARTS,
    SHAREGPT_KEYS,
    Conversation,
    Role,
    Turn,
    TurnKeys,
    parse_json,
)
from deita_tasks.strict_json import JSON

SHAREGPT_ROLES: dict[Role, str] = {
    "system": "system",
    "developer": "system",
    "user": "human",
    "assistant": "gpt",
    "tool": "observation",
}


def chat_turns(conversation: Conversation) -> list[dict[str, JSON]]:
    """Return the turns as chat APIs have them: role, content, and what else each holds."""
    return [_chat_turn(turn) for turn in conversation.turns]


def _chat_turn(turn: Turn) -> dict[str, JSON]:
    content = turn.fields.get(CONTENT_PARTS, turn.content)
    return _with_fields({"role": turn.role, "content": content}, turn.fields, CHAT_KEYS)


def sharegpt_turns(conversation: Conversation) -> list[dict[str, JSON]]:
    """Return the turns as LLaMA-Factory reads them.

    A turn that only calls tools has the role function_call, and the calls as its text.
    """
    return [_sharegpt_turn(turn) for turn in conversation.turns]


def _sharegpt_turn(turn: Turn) -> dict[str, JSON]:
    fields = dict(turn.fields)
    if turn.role == "developer":
        fields["role"] = "developer"
    if turn.role == "assistant" and not turn.content and "tool_calls" in fields:
        return _call_turn(fields)
    raw_call = fields.get("function_call")
    if turn.role == "assistant" and not turn.content and isinstance(raw_call, str):
        del fields["function_call"]
        return _with_fields({"from": "function_call", "value": raw_call}, fields, SHAREGPT_KEYS)
    own: dict[str, JSON] = {"from": SHAREGPT_ROLES[turn.role], "value": turn.content}
    return _with_fields(own, fields, SHAREGPT_KEYS)


def _call_turn(fields: dict[str, JSON]) -> dict[str, JSON]:
    """Return a turn of calls; its field tool_calls stays where the text does not say it all."""
    calls = parse_json(fields["tool_calls"])
    calls = calls if isinstance(calls, list) else [calls]
    functions = [_function_of(call) for call in calls]
    shown = functions[0] if len(functions) == 1 else functions
    if calls == [_named_call(function) for function in functions]:
        fields.pop("tool_calls")
    own: dict[str, JSON] = {
        "from": "function_call",
        "value": json.dumps(shown, ensure_ascii=False),
    }
    return _with_fields(own, fields, SHAREGPT_KEYS)


def _named_call(function: JSON) -> JSON:
    """Return the call that loading makes of a function; None if it makes none."""
    is_named = isinstance(function, dict) and isinstance(function.get("name"), str)
    return {"type": "function", "function": function} if is_named else None


def _function_of(call: JSON) -> JSON:
    function = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(function, dict) or "arguments" not in function:
        return function
    return {**function, "arguments": parse_json(function["arguments"])}


def _with_fields(
    own: dict[str, JSON], fields: Mapping[str, JSON], keys: TurnKeys
) -> dict[str, JSON]:
    """Return a turn with its fields; a field with the name of a key gets another one."""
    for name, value in fields.items():
        if name == CONTENT_PARTS and keys == CHAT_KEYS:
            continue
        own[f"input_{name}" if name in keys else name] = value
    return own
