"""System prompt and tools, which a row may have in columns of their own."""

from __future__ import annotations

from typing import NamedTuple

from deita_tasks.conversations import SYSTEM_COLUMNS, TOOLS_COLUMNS, Turn, parse_json, parse_tools
from deita_tasks.strict_json import JSON


class Context(NamedTuple):
    """The turns of a row, a system prompt among them, and the tools that its model may call."""

    turns: list[Turn]
    tools: JSON


def take_context(turns: list[Turn], columns: dict[str, JSON]) -> Context:
    """Return the turns with the system prompt of `columns`, and the tools.

    Removes these columns. Those that hold something else under such a name stay.
    """
    for name in reversed(SYSTEM_COLUMNS):
        prompt = _prompt_text(columns.get(name))
        if prompt is None:
            continue
        columns.pop(name, None)
        system = Turn("system", prompt)
        if system.content.strip() and turns[:1] != [system]:
            turns = [system, *turns]
    return _take_tools(turns, columns)


def _prompt_text(value: JSON) -> str | None:
    """Return the text of a system prompt: a text, null or text parts; None for anything else."""
    if isinstance(value, str | None):
        return value or ""
    parts = value if isinstance(value, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    known = [text for text in texts if isinstance(text, str)]
    return "".join(known) if parts and len(known) == len(parts) else None


def _take_tools(turns: list[Turn], columns: dict[str, JSON]) -> Context:
    """Return the turns and the tools of `columns`, which loses them, or else of a turn's field.

    The turn that held the tools comes back without that field. Tools are None if there are none.
    """
    for name in TOOLS_COLUMNS:
        tools = columns.get(name)
        if _are_tools(tools):
            columns.pop(name, None)
            if parse_json(tools):
                return Context(turns, tools)
    for number, turn in enumerate(turns):
        for name in TOOLS_COLUMNS:
            tools = turn.fields.get(name)
            if tools and _are_tools(tools):
                fields = dict(turn.fields)
                del fields[name]
                without = Turn(turn.role, turn.content, fields)
                before = turns[:number]
                after = turns[number + 1 :]
                return Context([*before, without, *after], tools)
    return Context(turns, None)


def _are_tools(value: JSON) -> bool:
    """Return whether `value` describes tools: objects, or their JSON texts; or is empty."""
    parsed = parse_tools(value)
    if not parsed:
        return True
    if isinstance(parsed, dict):
        return True
    if not isinstance(parsed, list):
        return False
    return all(isinstance(tool, dict) for tool in parsed)
