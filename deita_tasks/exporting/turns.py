"""A conversation as a list of turn objects."""

from __future__ import annotations

import json

from deita_tasks.conversations import SHAREGPT_KEYS, Conversation, Role, Turn, parse_json
from deita_tasks.models.chat import with_fields
from deita_tasks.strict_json import JSON

SHAREGPT_ROLES: dict[Role, str] = {
    "system": "system",
    "developer": "system",
    "user": "human",
    "assistant": "gpt",
    "tool": "observation",
}


def sharegpt_turns(conversation: Conversation) -> list[dict[str, JSON]]:
    """Return the turns as LLaMA-Factory reads them.

    A turn that only calls tools has the role function_call, and the calls as its text.
    """
    return [_sharegpt_turn(turn) for turn in conversation.turns]


def _sharegpt_turn(turn: Turn) -> dict[str, JSON]:
    """Return a turn with the keys of ShareGPT; calls become its text where it has no other."""
    own: dict[str, JSON]
    fields = dict(turn.fields)
    if turn.role == "developer":
        fields["role"] = "developer"
    is_silent = turn.role == "assistant" and not turn.content
    if is_silent and "tool_calls" in fields:
        return _call_turn(fields)
    raw_call = fields.get("function_call")
    if is_silent and isinstance(raw_call, str):
        del fields["function_call"]
        own = {"from": "function_call", "value": raw_call}
        return with_fields(own, fields, SHAREGPT_KEYS)
    own = {"from": SHAREGPT_ROLES[turn.role], "value": turn.content}
    return with_fields(own, fields, SHAREGPT_KEYS)


def _call_turn(fields: dict[str, JSON]) -> dict[str, JSON]:
    """Return a turn of calls; its field tool_calls stays where the text does not say it all."""
    calls = parse_json(fields["tool_calls"])
    calls = calls if isinstance(calls, list) else [calls]
    functions = [_function_of(call) for call in calls]
    shown = functions[0] if len(functions) == 1 else functions
    restored = [_named_call(function) for function in functions]
    if calls == restored:
        fields.pop("tool_calls")
    text = json.dumps(shown, ensure_ascii=False)
    own: dict[str, JSON] = {"from": "function_call", "value": text}
    return with_fields(own, fields, SHAREGPT_KEYS)


def _named_call(function: JSON) -> JSON:
    """Return the call that loading makes of a function; None if it makes none."""
    if not isinstance(function, dict):
        return None
    if not isinstance(function.get("name"), str):
        return None
    return {"type": "function", "function": function}


def _function_of(call: JSON) -> JSON:
    """Return the function of a call, its arguments parsed if they are JSON text."""
    function = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(function, dict) or "arguments" not in function:
        return function
    arguments = parse_json(function["arguments"])
    return {**function, "arguments": arguments}
