"""How the rows of a subset hold their conversations: what a trainer has to be told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from deita_tasks.conversations import (
    CALL_ROLES,
    CHAT_KEYS,
    SHAREGPT_KEYS,
    SYSTEM_COLUMNS,
    TOOLS_COLUMNS,
    Conversation,
    Turn,
    TurnKeys,
    media_of,
)
from deita_tasks.strict_json import JSON

PROMPT_COLUMNS = (
    *("instruction", "prompt", "question", "query", "problem"),
    *("inputs", "input", "user"),
)
RESPONSE_COLUMNS = (
    *("output", "response", "completion", "answer", "answers", "solution"),
    *("generated_solution", "targets", "target", "assistant"),
)
# Columns beside the turns, by what they are for.
SIDE_COLUMNS = {
    "query": ("input", "context"),  # of an instruction
    "history": ("history",),
    "system": SYSTEM_COLUMNS,
    "tools": TOOLS_COLUMNS,
}

# What a turn is to a trainer: its role, or "call" for a turn whose text is a call.
Part: TypeAlias = Literal["system", "developer", "user", "assistant", "call", "tool"]


class Form(NamedTuple):
    """Where a row has its turns.

    turns: in one column, a list of objects with `keys`. texts: a prompt and a response, in one
    column each. lists: the same two columns, with lists of turns. other: none of these.
    """

    kind: Literal["turns", "texts", "lists", "other"]
    columns: tuple[str, ...] = ()
    keys: TurnKeys = CHAT_KEYS


class RoleNames(NamedTuple):
    """The names that a row has for the roles of its turns, and whether the roles alternate.

    They alternate where users and tools take turns with the assistant, who has the last word; a
    system turn may come before.
    """

    names: frozenset[tuple[Part, str]]
    alternate: bool


@dataclass
class Layout:
    """What the rows of a subset have in common.

    columns: the names of SIDE_COLUMNS by use. media: the input columns that refer to images and
    the like, by kind. role_names: the number of rows by the names of their roles. turn_fields: what
    turns hold. even_turns: whether all turns hold the same. calls: rows with tool calls.
    unread_calls: rows with a call that only a turn's fields hold. no_text: rows with a turn whose
    content is no text. media_rows: rows that refer to images and the like. text_tools: whether all
    tools are JSON text.
    """

    rows: int = 0
    forms: set[Form] = field(default_factory=set)
    columns: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    media: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    role_names: Counter[RoleNames] = field(default_factory=Counter)
    turn_fields: dict[str, None] = field(default_factory=dict)
    even_turns: bool = True
    calls: int = 0
    unread_calls: int = 0
    no_text: int = 0
    media_rows: int = 0
    text_tools: bool = True

    def add(self, conversation: Conversation, own: Mapping[str, JSON]) -> None:
        """Include one row. own: its output columns that hold the conversation."""
        form = _form_of(own)
        self.rows += 1
        self.forms.add(form)
        self._add_columns(form, own)
        for kind, _ in media_of(conversation.extra):
            names = {kind, f"{kind}s"} & conversation.extra.keys()
            self.media[kind] |= names
        self.media_rows += bool(conversation.media)
        self.calls += any(_has_call(turn.fields) for turn in conversation.turns)
        if form.kind == "turns":
            (column,) = form.columns
            self._add_turns(conversation.turns, own[column], form.keys)

    def _add_columns(self, form: Form, own: Mapping[str, JSON]) -> None:
        """Include the columns beside the turns, by use."""
        for use, names in SIDE_COLUMNS.items():
            found = [name for name in names if name in own and name not in form.columns]
            self.columns[use].update(found)
            if use == "tools":
                tools = [own[name] for name in found]
                self.text_tools &= all(isinstance(value, str | None) for value in tools)
                if any(map(_is_list_of_texts, tools)):
                    self.forms.add(Form("other"))

    def _add_turns(self, turns: tuple[Turn, ...], objects: JSON, keys: TurnKeys) -> None:
        """Include turns and the objects in which the row has them.

        A system prompt that the row has in a column is a turn without an object.
        """
        raw = [item for item in objects if isinstance(item, dict)]  # type: ignore[union-attr]
        # A turn of the row became its column of tools, or one became two.
        if len(raw) > len(turns) or any(map(_is_split, raw)):
            self.forms.add(Form("other"))
            return
        for item in raw:
            self.turn_fields.update(dict.fromkeys(item))
            self.even_turns &= item.keys() == self.turn_fields.keys()
        role_names = [str(item[keys.role]) for item in raw]
        own_turns = turns[len(turns) - len(raw) :]
        parts = list(map(_part_of, own_turns, role_names))
        names = frozenset(zip(parts, role_names, strict=True))
        row_names = RoleNames(names, _alternate(parts))
        self.role_names[row_names] += 1
        by_fields = zip(parts, raw, strict=True)
        self.unread_calls += any(part != "call" and _has_call(item) for part, item in by_fields)
        texts = [item.get(keys.text) for item in raw]
        self.no_text += any(not isinstance(text, str) for text in texts)

    @property
    def form(self) -> Form | None:
        """The form of all rows; None if they have several, or there are no rows."""
        if len(self.forms) != 1:
            return None
        (form,) = self.forms
        return form

    def column(self, use: str) -> str | None:
        """Return the column for `use` of SIDE_COLUMNS; None if no row has one."""
        return min(self.columns[use], default=None)

    def usual_names(self) -> dict[Part, str]:
        """Return the name that most rows have for each part."""
        tally: Counter[tuple[Part, str]] = Counter()
        rows = sorted(self.role_names.items(), key=repr)
        for row, count in rows:
            tally.update(dict.fromkeys(row.names, count))
        names: dict[Part, str] = {}
        for (part, name), _ in tally.most_common():
            names.setdefault(part, name)
        return names


def _form_of(own: Mapping[str, JSON]) -> Form:
    """Return where a row has its turns: in a list of objects, or in a prompt and a response."""
    for name, value in own.items():
        if name in PROMPT_COLUMNS or name in RESPONSE_COLUMNS:
            continue
        keys = _keys_of(value)
        if keys is not None:
            return Form("turns", (name,), keys)
    prompt = next((name for name in PROMPT_COLUMNS if name in own), None)
    response = next((name for name in RESPONSE_COLUMNS if name in own), None)
    if prompt is None or response is None:
        return Form("other")
    sides = (own[prompt], own[response])
    if all(isinstance(side, str) for side in sides):
        return Form("texts", (prompt, response))
    if all(isinstance(side, list) for side in sides):
        return Form("lists", (prompt, response))
    return Form("other")


def _keys_of(value: JSON) -> TurnKeys | None:
    """Return the keys that all objects of a list of turns have; None for anything else."""
    if not isinstance(value, list) or not value:
        return None
    objects = [item for item in value if isinstance(item, dict)]
    if len(objects) != len(value):
        return None
    for keys in (CHAT_KEYS, SHAREGPT_KEYS):
        if all(isinstance(item.get(keys.role), str) for item in objects):
            return keys
    return None


def _part_of(turn: Turn, name: str) -> Part:
    """Return what a turn is to a trainer. name: what the row calls its role."""
    if turn.role == "assistant" and name in CALL_ROLES:
        return "call"
    if turn.role == "developer" and name == "system":
        return "system"
    return turn.role


def _alternate(parts: list[Part]) -> bool:
    """Return whether the turns alternate, as RoleNames has it."""
    turns = parts[1:] if parts[:1] == ["system"] else parts
    if len(turns) % 2:
        return False
    inputs = set(turns[::2])
    outputs = set(turns[1::2])
    return inputs <= {"user", "tool"} and outputs <= {"assistant", "call"}


def _is_split(item: Mapping[str, JSON]) -> bool:
    """Return whether a turn of the row is several: it holds what tools answered, and more."""
    content = item.get(CHAT_KEYS.text)
    parts = content if isinstance(content, list) else []
    kinds = [part.get("type") for part in parts if isinstance(part, dict)]
    return len(parts) > 1 and "tool_result" in kinds


def _is_list_of_texts(value: JSON) -> bool:
    """Return whether tools are given as a list with texts in it, which no trainer reads."""
    return isinstance(value, list) and any(isinstance(item, str) for item in value)


def _has_call(fields: Mapping[str, JSON]) -> bool:
    """Return whether the fields of a turn hold a call."""
    calls = fields.get("tool_calls") or fields.get("function_call")
    return bool(calls)
