"""The content of a turn: a text, or a list of parts as chat APIs have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from deita_tasks.conversations import CHAT_KEYS, MEDIA_KINDS
from deita_tasks.loading.base import BadRow, describe_type, require_text
from deita_tasks.strict_json import JSON

TEXT_PARTS = {"text", "input_text", "output_text"}
TOOL_RESULT = "tool_result"  # Anthropic's name for what a tool answered
REASONING_PARTS = {"thinking", "reasoning"}
MEDIA_PARTS = {
    *MEDIA_KINDS,
    *(f"{kind}_url" for kind in MEDIA_KINDS),
    *(f"input_{kind}" for kind in MEDIA_KINDS),
    "file",
    "input_file",
    "document",
}


class Content(NamedTuple):
    """What the content of a turn holds.

    text: all its text. parts: texts and media, if there are any media. reasoning, calls: of the
    assistant. is_tool_output: whether there is nothing but what tools answered.
    """

    text: str
    parts: list[JSON] | None = None
    reasoning: str = ""
    calls: Sequence[JSON] = ()
    is_tool_output: bool = False


def parse_content(content: JSON, label: str) -> Content:
    """Parse a text or a list of parts; chat templates join the texts as they are.

    label: names the content in messages. Raises BadRow for an empty list, and for a part of a type
    that no chat API has.
    """
    if not isinstance(content, list):
        return Content(require_text(content, label))
    if not content:
        raise BadRow("not_text", f"{label} is an empty list; expected a string")
    parts = [_Part.parse(part, label) for part in content]
    texts = [part.text for part in parts if part.kind in ("text", TOOL_RESULT)]
    thoughts = [part.text for part in parts if part.kind == "reasoning"]
    shown = [part for part in parts if part.kind in ("text", "media")]
    has_media = any(part.kind == "media" for part in shown)
    return Content(
        text="".join(texts),
        parts=[part.value for part in shown] if has_media else None,
        reasoning="\n\n".join(thoughts),
        calls=[part.value for part in parts if part.kind == "tool_use"],
        is_tool_output=all(part.kind == TOOL_RESULT for part in parts),
    )


def split_results(turn: JSON) -> list[JSON]:
    """Return a turn as several where its parts are what tools answered, each by itself, and more.

    (The API of Anthropic has no role for tools.) Other turns are returned as they are.
    """
    content = turn.get(CHAT_KEYS.text) if isinstance(turn, dict) else None
    if not isinstance(turn, dict) or not isinstance(content, list):
        return [turn]
    turns: list[JSON] = []
    for is_result, group in groupby(content, _is_result):
        parts = list(group)
        if is_result:
            turns += [_result_turn(turn, part) for part in parts]
        else:
            turns.append({**turn, CHAT_KEYS.text: parts})
    return turns or [turn]


def _is_result(part: JSON) -> bool:
    """Return whether a part is what a tool answered, as Anthropic's API marks it."""
    return isinstance(part, dict) and _kind_of(part) == TOOL_RESULT


def _result_turn(turn: Mapping[str, JSON], part: JSON) -> JSON:
    """Return a turn with this part alone and the other fields of `turn`.

    Its `tool_call_id` is the call that the part answers, null where the part names none.
    """
    call_id = part.get("tool_use_id") if isinstance(part, dict) else None
    return {**turn, CHAT_KEYS.text: [part], "tool_call_id": call_id}


class _Part(NamedTuple):
    """A part of a content. text: "" for media and calls. value: the part, or the call it is."""

    kind: str  # text, media, reasoning, tool_use or tool_result
    text: str
    value: JSON

    @classmethod
    def parse(cls, part: JSON, label: str) -> _Part:
        """Parse a part, or a text in its place. Raises BadRow for a part of another type."""
        if isinstance(part, str):
            return cls("text", part, {"type": "text", "text": part})
        fields = {}
        if isinstance(part, dict):
            fields = {name: value for name, value in part.items() if value is not None}
        kind = _kind_of(fields)
        text = fields.get("text")
        if kind in TEXT_PARTS and isinstance(text, str):
            return cls("text", text, {"type": "text", "text": text})
        if kind in REASONING_PARTS:
            thought = fields.get("thinking", text)
            if not isinstance(thought, str):
                thought = ""
            return cls("reasoning", thought, fields)
        if kind in MEDIA_PARTS:
            return cls("media", "", {"type": kind, **fields})
        if kind == "tool_use":  # Anthropic's name for a call
            arguments = fields.get("input")
            function = {"name": fields.get("name"), "arguments": arguments}
            call = {"id": fields.get("id"), "type": "function", "function": function}
            return cls("tool_use", "", call)
        if kind == TOOL_RESULT:
            output = _output_text(fields, label)
            return cls(TOOL_RESULT, output, fields)
        described = kind or describe_type(part)
        detail = f"{label} is a list with {described!r:.40}; expected parts of type 'text'"
        raise BadRow("not_text", f"{detail}, images, audio or video")


def _kind_of(fields: Mapping[str, JSON]) -> str:
    """Return the type of a part; some pools name it by the key of the value alone."""
    kind = fields.get("type")
    if isinstance(kind, str):
        return kind
    named = [name for name in fields if name in TEXT_PARTS | MEDIA_PARTS]
    return named[0] if len(named) == 1 else ""


def _output_text(fields: Mapping[str, JSON], label: str) -> str:
    """Return the text of what a tool answered, "" for nothing. Raises BadRow."""
    output = fields.get("content", "")
    if not output:
        return ""
    return parse_content(output, label).text
