"""Conversations: turns, exchanges, and what makes two conversations the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias, get_args

from deita_tasks.strict_json import JSON

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)

QuarantineReason = Literal[
    "malformed_row",  # invalid JSON, not an object, or a CSV line that does not match its header
    "missing_field",  # a required column is absent or null
    "unknown_role",
    "empty_conversation",  # no turns, or none of them has text
    "no_user_turn",
    "no_answer",  # the assistant answers no user turn
    "rejected_answer",  # marked as an answer that a model shall not give
    "not_text",  # a text, a role or an instruction that is not a string
    "invalid_utf8",
    "nul_byte",
    "lone_surrogate",
    "too_long",  # larger than the loader's limit for one row
]

# What of a turn's fields a model is shown, in the chat templates of today's models.
SHOWN_FIELDS = (
    "tool_calls",
    "function_call",
    "tool_call_id",
    "name",
    "reasoning_content",
    "reasoning",
    "thinking",
    "content_parts",
)
# The field that holds the parts of a content that is not only text, as the input has them.
CONTENT_PARTS = "content_parts"
MEDIA_KINDS = ("image", "video", "audio")
MEDIA_COLUMNS = tuple(name for kind in MEDIA_KINDS for name in (kind, f"{kind}s"))

# What the store keeps a value of a conversation by: all of it, or its text alone.
RowKey = Literal["id", "text_id"]

Media: TypeAlias = Sequence[tuple[str, Sequence[JSON]]]  # references, by kind


class TurnKeys(NamedTuple):
    """The names under which a turn object holds its role and its text."""

    role: str
    text: str


# Columns beside the turns that are part of a conversation, and the roles of turns that are calls.
SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")
TOOLS_COLUMNS = ("tools", "functions")
CALL_ROLES = ("function_call", "tool_call", "tool_calls")

SHAREGPT_KEYS = TurnKeys("from", "value")
CHAT_KEYS = TurnKeys("role", "content")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation.

    `content` may be any text, also an empty one. `fields` is what else the turn holds, under the
    names of chat APIs: tool_calls, tool_call_id, name, reasoning_content, weight and so on. Content
    with images, audio or video is its text in `content`, and all its parts in CONTENT_PARTS.
    """

    role: Role
    content: str
    fields: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role {self.role!r}: expected one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise TypeError(f"content of type {type(self.content).__name__}: expected str")

    @property
    def text(self) -> str:
        """The content, followed by the tool calls."""
        if not self.fields:
            return self.content
        return join_texts([self.content, call_text(self.fields)])


class Pair(NamedTuple):
    """One exchange as a scorer reads it."""

    instruction: str
    response: str


class SourceRow(NamedTuple):
    """Where a row comes from: the file's URI and its 1-based row (the line in line-based files)."""

    uri: str
    row: int


NOWHERE = SourceRow("", 0)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation of the pool.

    turns: never empty. tools: what the model may call, as its column in the input has it. extra:
    the columns of the input row that hold neither turns nor tools. row: the whole input row, empty
    if there was none. id: the `content_id`, so equal conversations have equal ids, whatever their
    source.
    """

    turns: tuple[Turn, ...]
    source: SourceRow = NOWHERE
    extra: Mapping[str, JSON] = field(default_factory=dict)
    tools: JSON = None
    row: Mapping[str, JSON] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "turns", tuple(self.turns))
        if not self.turns:
            raise ValueError("a conversation without turns: expected at least one turn")
        if not self.id:
            object.__setattr__(self, "id", content_id(self.turns, self.tools, media_of(self.extra)))

    @property
    def text_id(self) -> str:
        """The id of what scorers and embedders read: roles, texts and calls, without the rest.

        It is `id` where the conversation is nothing but text, in exchanges of one user turn and one
        answer. Others have ids of their own, made like `content_id` from [role, content] or
        [role, content, calls] and a mark: early versions cut them into other pairs, so stores hold
        scores under their `id` that are not those of `pairs`.
        """
        has_more = self.tools or any(turn.fields for turn in self.turns) or media_of(self.extra)
        is_plain = all(map(_is_plain, split_exchanges(self.turns)))
        if is_plain and not has_more:
            return self.id
        content: list[JSON] = [_read_parts(turn) for turn in self.turns]
        return _digest(content if is_plain else [*content, ["exchanges"]])

    @property
    def pairs(self) -> list[Pair]:
        """One Pair for each exchange that the assistant answers.

        An exchange is one or more user turns in a row, and all that follows up to the next user
        turn. The texts of its user turns are the instruction, those of its assistant turns the
        response, joined by blank lines. Where the assistant only calls tools, the calls are the
        response.

        (The original DEITA code pairs turns 2i and 2i+1. That is the same where user and assistant
        alternate and every answer has a text; otherwise it scores texts that belong to others.)
        """
        exchanges = split_exchanges(self.turns)
        pairs = [Pair(_instruction(turns), _response(turns)) for turns in exchanges]
        return [pair for pair in pairs if pair.response]

    @property
    def first_instruction(self) -> str:
        """The instruction of the first pair, or of the first exchange if there is no answer."""
        pairs = self.pairs
        if pairs:
            return pairs[0].instruction
        exchanges = split_exchanges(self.turns)
        return _instruction(exchanges[0]) if exchanges else ""

    @property
    def spoken_texts(self) -> Iterator[str]:
        """What user and assistant say, turn by turn."""
        return (turn.content for turn in self.turns if turn.role in ("user", "assistant"))

    def beginning(self, turns: int) -> Conversation:
        """Return the first `turns` turns as a conversation that came from no row."""
        return Conversation(self.turns[:turns], self.source, self.extra, self.tools)

    @property
    def unanswered(self) -> int:
        """The number of exchanges without an answer; they add nothing to the evol score."""
        return len(split_exchanges(self.turns)) - len(self.pairs)

    @property
    def is_complete(self) -> bool:
        """Whether the assistant has the last word: an answer or a tool call."""
        last = self.turns[-1]
        return last.role == "assistant" and bool(
            last.text.strip() or last.fields.get(CONTENT_PARTS)
        )

    @property
    def media(self) -> int:
        """The number of images, audio files and videos that the conversation refers to."""
        in_columns = sum(len(references) for _, references in media_of(self.extra))
        return in_columns + sum(map(_count_media_parts, self.turns))


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row that could not become a Conversation.

    `raw` is the beginning of the row as it is in the file, with undecodable bytes escaped.
    """

    source: SourceRow
    reason: QuarantineReason
    detail: str
    raw: str


def split_exchanges(turns: Iterable[Turn]) -> list[list[Turn]]:
    """Return the turns of each exchange; turns before the first user turn belong to none.

    User turns in a row begin one exchange, which goes on to the next user turn after another role.
    """
    exchanges: list[list[Turn]] = []
    previous: Role | None = None
    for turn in turns:
        if turn.role == "user" and previous != "user":
            exchanges.append([])
        if exchanges:
            exchanges[-1].append(turn)
        previous = turn.role
    return exchanges


def _is_plain(exchange: Sequence[Turn]) -> bool:
    """Return whether it has one user turn and one assistant turn, which is not blank."""
    roles = [turn.role for turn in exchange]
    if roles.count("user") != 1 or roles.count("assistant") != 1:
        return False
    return bool(exchange[roles.index("assistant")].content.strip())


def _instruction(exchange: Sequence[Turn]) -> str:
    """Return the texts of an exchange's user turns, a blank line between two."""
    return join_texts(turn.content for turn in exchange if turn.role == "user")


def _response(exchange: Sequence[Turn]) -> str:
    """Return the texts of the assistant's turns; its tool calls if it says nothing; else ""."""
    answers = [turn for turn in exchange if turn.role == "assistant"]
    spoken = join_texts(turn.content for turn in answers if turn.content.strip())
    return spoken or join_texts(call_text(turn.fields) for turn in answers)


def join_texts(texts: Iterable[str]) -> str:
    """Return the texts with a blank line between two, without empty ones."""
    return "\n\n".join(text for text in texts if text)


def call_text(fields: Mapping[str, JSON]) -> str:
    """Return the tool calls among the fields of a turn as text; "" if there are none.

    Each is a JSON object of name and arguments, the same whether it came from chat APIs or
    ShareGPT; a call that is not of this form is its own text.
    """
    return join_texts(_describe_call(call) for call in _calls(fields))


def _calls(fields: Mapping[str, JSON]) -> list[JSON]:
    """Return the calls of a turn as they came: `tool_calls`, then the older `function_call`."""
    calls = parse_json(fields.get("tool_calls"))
    several = calls if isinstance(calls, list) else [calls]
    return [call for call in (*several, fields.get("function_call")) if call]


def _describe_call(call: JSON) -> str:
    """Return a call as {"name": ..., "arguments": ...}; as its own text if it has no name."""
    function = call.get("function", call) if isinstance(call, dict) else call
    if isinstance(function, str):
        return function
    if not isinstance(function, dict) or "name" not in function:
        return _sorted_json(call)
    name = _sorted_json(function["name"])
    arguments = _sorted_json(parse_json(function.get("arguments")))
    return f'{{"name": {name}, "arguments": {arguments}}}'


def _sorted_json(value: JSON) -> str:
    """Return JSON text that does not depend on the order of names, as ids do not."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def parse_json(value: JSON) -> JSON:
    """Return what the JSON text of a list or object stands for; any other value as it is.

    Data sets often keep tool calls as JSON text. Text that is no JSON is no error.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        parsed: JSON = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed


def parse_tools(tools: JSON) -> JSON:
    """Return descriptions of tools as objects, be they one JSON text or a list of texts."""
    parsed = parse_json(tools)
    return [parse_json(tool) for tool in parsed] if isinstance(parsed, list) else parsed


def media_of(columns: Mapping[str, JSON]) -> Media:
    """Return the references to images, videos and audio in columns such as `image` and `images`.

    Pairs of kind ("image") and references. A column of one reference counts like a list of one.
    """
    media = []
    for name in MEDIA_COLUMNS:
        references = columns.get(name)
        kind = name.removesuffix("s")
        if references and isinstance(references, str | dict):
            media.append((kind, [references]))
        elif references and isinstance(references, list):
            media.append((kind, references))
    return media


def _count_media_parts(turn: Turn) -> int:
    """Return the parts that name a file; others stand for one of a column's."""
    parts = turn.fields.get(CONTENT_PARTS)
    members = parts if isinstance(parts, list) else []
    media = [part for part in members if isinstance(part, dict) and part.get("type") != "text"]
    return sum(len(part) > 1 for part in media)


def content_id(turns: Iterable[Turn], tools: JSON = None, media: Media = ()) -> str:
    """Return the id of a conversation, which depends on all that a model is shown of it.

    It is the first 32 hex digits of the SHA-256 of the UTF-8 bytes of the canonical JSON (RFC 8785,
    but numbers as Python writes them) of [[role, content], ...], where a turn with SHOWN_FIELDS is
    [role, content, fields]; then come ["tools", tools] and ["media", ...] if there are any. Calls
    and tools are the same as objects and as the JSON texts of these.
    """
    content: list[JSON] = [_shown(turn) for turn in turns]
    if tools:
        content.append(["tools", parse_tools(tools)])
    if media:
        content.append(["media", *map(list, media)])
    return _digest(content)


def _digest(content: JSON) -> str:
    """Return 32 hex digits of the SHA-256 of the canonical JSON, 128 bits. Stores depend on it."""
    canonical = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:32]


def _read_parts(turn: Turn) -> list[JSON]:
    """Return [role, content], and the tool calls as text if there are any: what a scorer reads."""
    calls = call_text(turn.fields)
    return [turn.role, turn.content, calls] if calls else [turn.role, turn.content]


def _shown(turn: Turn) -> list[JSON]:
    """Return [role, content], and SHOWN_FIELDS that are not empty; tool calls are comparable."""
    fields = {name: turn.fields[name] for name in SHOWN_FIELDS if turn.fields.get(name)}
    if "tool_calls" in fields:
        fields["tool_calls"] = list(
            map(_comparable_call, _calls({"tool_calls": fields["tool_calls"]}))
        )
    return [turn.role, turn.content, fields] if fields else [turn.role, turn.content]


def _comparable_call(call: JSON) -> JSON:
    """Return a call without what is null, its arguments as an object."""
    if not isinstance(call, dict):
        return call
    parts = {name: value for name, value in call.items() if value is not None}
    if "arguments" in parts:
        parts["arguments"] = parse_json(parts["arguments"])
    if "function" in parts:
        parts["function"] = _comparable_call(parts["function"])
    return parts
