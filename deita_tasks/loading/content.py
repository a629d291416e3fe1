"""The content of a turn: a text, or a list of parts as chat APIs have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deita_tasks.conversations import MEDIA_KINDS
from deita_tasks.loading.base import BadRow, describe_type, require_text
from deita_tasks.strict_json import JSON

TEXT_PARTS = {"text", "input_text", "output_text"}
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
    """Parse a text or a list of parts; chat templates join the texts as they are. Raises BadRow."""
    if not isinstance(content, list):
        return Content(require_text(content, label))
    if not content:
        raise BadRow("not_text", f"{label} is an empty list; expected a string")
    parts = [_Part.parse(part, label) for part in content]
    texts = [part.text for part in parts if part.kind in ("text", "tool_result")]
    thoughts = [part.text for part in parts if part.kind == "reasoning"]
    shown = [part for part in parts if part.kind in ("text", "media")]
    has_media = any(part.kind == "media" for part in shown)
    return Content(
        text="".join(texts),
        parts=[part.value for part in shown] if has_media else None,
        reasoning="\n\n".join(thoughts),
        calls=[part.value for part in parts if part.kind == "tool_use"],
        is_tool_output=all(part.kind == "tool_result" for part in parts),
    )


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
        if kind == "tool_result":
            output = _output_text(fields, label)
            return cls("tool_result", output, fields)
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
