"""Lists of turns, as sharegpt and messages have them: who said it, and what was said."""

from __future__ import annotations

from typing import Any

from deita_tasks.loading.base import BadRow, kind_of, text_of
from deita_tasks.loading.json_text import parse
from deita_tasks.records import Role, Turn

# Who speaks and what is said: ShareGPT's names, and those of chat APIs. Pools mix the one's column
# with the other's names.
KEYS = (("from", "value"), ("role", "content"))

ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
}
# Names that say more than the role. They are kept in TURN_FIELDS.
SPECIAL_ROLES: dict[str, Role] = {
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

# The extra column for what a turn holds beside role and text (tool_calls, name, weight, ...): a
# list with an object or null a turn.
TURN_FIELDS = "turn_fields"


def chat_turns(value: Any, column: str) -> tuple[list[Turn], list[dict[str, Any] | None]]:
    """The turns in a column, which is a list of objects or its JSON text, and for each turn what
    else it holds. Raises BadRow.
    """
    if isinstance(value, str):
        try:
            value = parse(value)
        except BadRow as problem:
            raise BadRow(
                problem.reason,
                f"the text in {column!r} is {problem.detail}; expected a JSON list of turns",
            ) from None
    if not isinstance(value, list):
        raise BadRow("malformed_row", f"{column!r} is {kind_of(value)}; expected a list of turns")
    turns: list[Turn] = []
    rest: list[dict[str, Any] | None] = []
    for i, turn in enumerate(value, 1):
        one, fields = _turn(turn, f"turn {i} of {column!r}")
        turns.append(one)
        rest.append(fields)
    return turns, rest


def _turn(turn: Any, where: str) -> tuple[Turn, dict[str, Any] | None]:
    if not isinstance(turn, dict):
        raise BadRow("malformed_row", f"{where} is {kind_of(turn)}; expected an object")
    speaker, said = KEYS[0] if turn.get("from") is not None or "role" not in turn else KEYS[1]
    if speaker not in turn:
        raise BadRow("missing_field", f"{where} has neither 'from' nor 'role'")
    name = text_of(turn[speaker], f"{speaker!r} of {where}")
    role, special = role_of(name, where)
    fields = {
        key: value
        for key, value in turn.items()
        if key not in (speaker, said) and value is not None
    }
    if special:
        fields[speaker] = name
    if said not in turn and not _calls(fields):
        raise BadRow("missing_field", f"{where} has no {said!r}")
    content = turn.get(said)
    if not isinstance(content, str):
        content = (
            "" if content is None and _calls(fields) else _joined(content, f"{said!r} of {where}")
        )
    return Turn(role, content), fields or None


def role_of(name: str, where: str) -> tuple[Role, bool]:
    """The role that `name` stands for, and whether it says more than the role. Raises BadRow."""
    plain = name if name in ROLES else name.strip().lower()
    if plain in ROLES:
        return ROLES[plain], False
    if plain in SPECIAL_ROLES:
        return SPECIAL_ROLES[plain], True
    raise BadRow(
        "unknown_role",
        f"{where} has the role {name[:40]!r}; known are {', '.join([*ROLES, *SPECIAL_ROLES])}",
    )


def _calls(fields: dict[str, Any]) -> bool:
    """Whether the turn calls a tool; a chat API then leaves its content null."""
    return bool(fields.get("tool_calls") or fields.get("function_call"))


def _joined(content: Any, what: str) -> str:
    """The text of a list of text parts, joined as chat templates do, with nothing between. Raises
    BadRow for anything else.
    """
    if not isinstance(content, list):
        return text_of(content, what)
    texts = []
    for part in content:
        held = (
            {key: value for key, value in part.items() if value is not None}
            if isinstance(part, dict)
            else {}
        )
        if (
            held.keys() != {"type", "text"}
            or held["type"] != "text"
            or not isinstance(held["text"], str)
        ):
            kind = held.get("type") if isinstance(held.get("type"), str) else kind_of(part)
            raise BadRow(
                "not_text",
                f"{what} is a list that holds {kind!r:.40}; expected parts of type 'text' alone",
            )
        texts.append(held["text"])
    if not texts:
        raise BadRow("not_text", f"{what} is an empty list; expected a string")
    return "".join(texts)


def keep_fields(columns: dict[str, Any], fields: list[dict[str, Any] | None]) -> None:
    """Adds the column TURN_FIELDS where any turn holds more than role and text."""
    if any(fields):
        name = TURN_FIELDS
        while name in columns:
            name += "_"
        columns[name] = fields
