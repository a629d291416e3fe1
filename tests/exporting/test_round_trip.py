"""A pool that is exported in its own format and read again is the same pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.conversations import NOWHERE, Conversation, Turn, parse_json
from deita_tasks.exporting import load_exporter
from deita_tasks.exporting.base import ExportRow
from deita_tasks.exporting.turns import sharegpt_turns
from deita_tasks.loading import load_layouts, read_conversations
from deita_tasks.models.chat import chat_turns
from tests.support.report_data import AWKWARD, MULTI, SECOND, SINGLE, TOOLS

CHAT = [
    {"role": "user", "content": AWKWARD},
    {"role": "assistant", "content": "Because of its many uses."},
]
POOLS: dict[str, list[dict[str, Any]]] = {
    "sharegpt": [
        {
            "id": "x_1",
            "conversations": [
                {"from": "human", "value": AWKWARD},
                {"from": "gpt", "value": "  b\n"},
            ],
            "score": 0.1,
        },
        {
            "conversations": [
                {"from": "system", "value": "S"},
                {"from": "human", "value": "a", "weight": 0},
                {"from": "function_call", "value": "{}"},
                {"from": "observation", "value": "21"},
                {"from": "chatgpt", "value": "An answer of more than a few words."},
                {"from": "human", "value": "open end"},
            ],
            "system": "a column of that name",
            "nested": {"a": [1, {"b": None}], "ü": "\u2028"},
        },
        {"conversation": "of another name", "conversations": CHAT, "images": ["x.png"]},
    ],
    "messages": [
        {"messages": CHAT, "prompt": "kept", "n": 2**70},
        {
            "messages": [
                {"content": "D", "role": "developer"},
                {"role": "user", "content": [{"text": "a", "type": "text"}, {"type": "image"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "1", "function": {"name": "f"}}],
                },
                {"role": "tool", "content": "c", "tool_call_id": "1"},
                {"role": "assistant", "content": "d"},
            ],
            "tools": '[{"name": "f"}]',
        },
        {"messages": json.dumps(CHAT[:1] * 2 + CHAT), "functions": [], "system_prompt": None},
    ],
    "alpaca": [
        {"instruction": "Add", "input": "2, 2", "output": "4", "text": "Below is an instruction"},
        {"output": "d", "instruction": AWKWARD, "input": ""},
        {
            "instruction": "c",
            "input": None,
            "output": "d",
            "history": [["a", "b"], ["", "x"]],
            "system": "Be brief.",
            "n": 1.0,
        },
    ],
    "prompt_response": [
        {"prompt": AWKWARD, "response": "b", "system": "no extra column", "n": 1},
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
            "response": [{"role": "assistant", "content": "b"}],
        },
    ],
}


def read(path: Path, format: str) -> list[Conversation]:
    conversations = list(read_conversations(str(path), format=format))
    assert all(isinstance(row, Conversation) for row in conversations), conversations
    return conversations  # type: ignore[return-value]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_bytes(
        b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
    )
    return path


def selected(conversations: list[Conversation]) -> list[ExportRow]:
    return [ExportRow(conversation, 1.0, i + 1) for i, conversation in enumerate(conversations)]


def export(name: str, conversations: list[Conversation], folder: Path) -> Path:
    """Export through a pool, as a run does; return the file with the conversations."""
    write_pool(str(folder / "pool"), conversations, [])
    pool = Pool.open(str(folder / "pool"))
    stored = pool.find([conversation.id for conversation in conversations])
    rows = selected([stored[conversation.id] for conversation in conversations])
    return load_exporter(name, scores=False).export(rows, folder / "out")[0]


def seen(conversation: Conversation) -> tuple[Any, ...]:
    """What may not change on the way through a format."""
    tools = parse_json(conversation.tools)
    return conversation.id, conversation.turns, tools, dict(conversation.extra), conversation.pairs


@pytest.mark.parametrize("format", POOLS)
def test_the_input_s_own_layout_is_the_very_row_that_was_read(format: str, tmp_path: Path) -> None:
    pool = read(write(tmp_path / "pool.jsonl", POOLS[format]), format)
    lines = export("input", pool, tmp_path).read_text(encoding="utf-8").split("\n")[:-1]
    assert lines == [json.dumps(row, ensure_ascii=False) for row in POOLS[format]]


@pytest.mark.parametrize("format", POOLS)
def test_a_pool_in_its_own_format(format: str, tmp_path: Path) -> None:
    pool = read(write(tmp_path / "pool.jsonl", POOLS[format]), format)
    reread = read(export(format, pool, tmp_path), format)
    assert list(map(seen, reread)) == list(map(seen, pool))


@pytest.mark.parametrize("format", ["sharegpt", "messages", "prompt_response"])
def test_every_conversation_survives_every_format_that_says_it_holds_all(
    format: str, tmp_path: Path
) -> None:
    pool = [SINGLE, SECOND, MULTI, TOOLS]
    (path,) = load_exporter(format, scores=False).export(selected(pool), tmp_path)
    reread = read(path, format)
    assert [
        (conversation.id, conversation.turns, dict(conversation.extra)) for conversation in reread
    ] == [(conversation.id, conversation.turns, conversation.extra) for conversation in pool]


@pytest.mark.parametrize("name", ["parquet", "hf_dataset"])
def test_parquet_gives_the_same_conversations_and_columns(name: str, tmp_path: Path) -> None:
    pool = [SINGLE, SECOND]
    path = load_exporter(name, scores=False).export(selected(pool), tmp_path)[0]
    reread = read(path, "messages")
    assert [conversation.turns for conversation in reread] == [
        conversation.turns for conversation in pool
    ]
    columns = ("id", "tags", "score", "nothing")
    assert [[conversation.extra.get(name) for name in columns] for conversation in reread] == [
        [conversation.extra.get(name) for name in columns] for conversation in pool
    ]


@pytest.mark.parametrize("name", ["parquet", "hf_dataset"])
def test_integers_beside_doubles_stay_integers_in_all_that_a_model_is_shown(
    name: str, tmp_path: Path
) -> None:
    def row(number: float) -> Conversation:
        call = {"type": "function", "function": {"name": "f", "arguments": {"x": [number, 0.5]}}}
        answer = Turn("assistant", "Because.", {"tool_calls": [call], "weight": number})
        return Conversation(
            (Turn("user", "Why?"), answer),
            extra={"image": {"path": "x.png", "width": number}, "score": number},
            tools=[{"name": "f", "default": [number, 0.0]}],
        )

    pool = [row(1), row(2.5)]
    reread = read(export(name, pool, tmp_path), "messages")
    assert [again.id for again in reread] == [each.id for each in pool]
    assert json.dumps(reread[0].tools) == '[{"name": "f", "default": [1, 0.0]}]'
    assert [each.extra["score"] for each in reread] == [1.0, 2.5]


def test_added_columns_come_back_as_columns(tmp_path: Path) -> None:
    (path,) = load_exporter("messages").export([ExportRow(SINGLE, 2.5, 3)], tmp_path)
    (reread,) = read(path, "messages")
    assert reread.extra == {
        **SINGLE.extra,
        "deita_id": SINGLE.id,
        "deita_evol_score": 2.5,
        "deita_rank": 3,
    }


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
long_texts = texts | texts.map(lambda text: text + " and so on, for more than a few words")
names = st.sampled_from(["f", "g", "ü"])
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda part: st.lists(part, max_size=2) | st.dictionaries(texts, part, max_size=2),
)
extras = st.dictionaries(
    st.sampled_from(["id", "input", "source", "turn_fields", "deita_id", "text", "context"]),
    values,
    max_size=3,
)
functions = st.fixed_dictionaries(
    {"name": names, "arguments": st.dictionaries(texts, values, max_size=2)}
)
calls = st.builds(
    lambda function, id: {**({"id": id} if id else {}), "type": "function", "function": function},
    functions | functions.map(lambda f: {**f, "arguments": json.dumps(f["arguments"])}),
    st.sampled_from(["", "1"]),
)
pictures = st.sampled_from(["x.png", "y.png"]).map(
    lambda name: {"type": "image_url", "image_url": {"url": name}}
)
assistant_fields = st.fixed_dictionaries(
    {},
    optional={
        "tool_calls": st.lists(calls, min_size=1, max_size=2),
        "reasoning_content": texts.filter(bool),
        "weight": st.sampled_from([0, 1]),
    },
)


@st.composite
def user_turns(draw: st.DrawFn) -> Turn:
    text = draw(long_texts)
    pictured = draw(st.none() | pictures)
    if pictured is None:
        return Turn("user", text)
    return Turn("user", text, {"content_parts": [pictured, {"type": "text", "text": text}]})


assistant_turns = st.builds(Turn, st.just("assistant"), long_texts, assistant_fields)
tool_turns = st.builds(
    Turn, st.just("tool"), texts, st.sampled_from([{}, {"name": "f"}, {"tool_call_id": "1"}])
)
other_turns = st.builds(Turn, st.sampled_from(["system", "developer"]), texts)
any_turns = st.lists(user_turns() | assistant_turns | tool_turns | other_turns, max_size=5).map(
    lambda turns: (*turns, Turn("user", "Why?"), Turn("assistant", "Because."))
)
tools = st.none() | st.lists(functions, min_size=1, max_size=2)
conversations = st.builds(
    lambda turns, extra, tools, images: Conversation(
        turns, extra={**extra, **({"images": images} if images else {})}, tools=tools
    ),
    any_turns,
    extras,
    tools,
    st.none() | st.just(["x.png"]),
)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(pool=st.lists(conversations, min_size=1, max_size=3, unique_by=lambda row: row.id))
@pytest.mark.parametrize(
    "name", ["input", "messages", "sharegpt", "prompt_response", "parquet", "hf_dataset"]
)
def test_nothing_is_lost_or_invented_whatever_the_format(
    name: str, pool: list[Conversation], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = export(name, pool, tmp_path_factory.mktemp("fuzz"))
    format = name if name in ("sharegpt", "prompt_response") else "messages"
    reread = read(path, format)
    assert [row.id for row in reread] == [row.id for row in pool]
    assert [row.pairs for row in reread] == [row.pairs for row in pool]
    assert [[turn.text for turn in row.turns] for row in reread] == [
        [turn.text for turn in row.turns] for row in pool
    ]
    if name in ("parquet", "hf_dataset"):  # which have no absent values
        columns = {column for row in pool for column in row.extra}
        absent = dict.fromkeys(columns)
        assert [{**absent, **row.extra} for row in reread] == [
            {**absent, **row.extra} for row in pool
        ]
    else:
        assert list(map(seen, reread)) == list(map(seen, pool))


@FUZZ
@given(row=conversations, system=texts.filter(str.strip))
def test_one_conversation_has_one_id_whatever_the_layout(row: Conversation, system: str) -> None:
    assume(row.turns[0].role != "system")  # which a column of the same text would stand for
    turns = (Turn("system", system), *row.turns)
    whole = Conversation(turns, extra=row.extra, tools=row.tools)
    messages = {"messages": chat_turns(row), **row.extra, "tools": row.tools}
    sharegpt = {"conversations": sharegpt_turns(row), **row.extra}
    layouts = [
        ("messages", {**messages, "system": system}),
        ("messages", {**messages, "messages": chat_turns(whole), "system": system}),
        ("messages", {**messages, "messages": json.dumps(chat_turns(whole))}),
        ("sharegpt", {**sharegpt, "system_prompt": system, "tools": json.dumps(row.tools)}),
        ("sharegpt", {**sharegpt, "system": system, "functions": row.tools, "tools": None}),
    ]
    for format, columns in layouts:
        (layout, *_) = load_layouts(format)
        assert layout.conversation(columns, NOWHERE).id == whole.id, columns


def canonical(row: Conversation) -> str:
    """All that a model is shown of a conversation, written down independently of content_id."""
    return json.dumps(
        [
            [
                [turn.role, turn.content, *(turn.fields.get(name) for name in SHOWN)]
                for turn in row.turns
            ],
            row.tools,
            row.extra.get("images"),
        ],
        sort_keys=True,
    )


SHOWN = ["tool_calls", "reasoning_content", "name", "tool_call_id", "content_parts"]


@FUZZ
@given(row=conversations, data=st.data())
def test_ids_differ_exactly_where_conversations_differ(
    row: Conversation, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(row.turns) - 1))
    turn = row.turns[position]
    changed = data.draw(
        st.sampled_from(
            [
                Turn(turn.role, turn.content + ".", turn.fields),
                Turn("tool" if turn.role != "tool" else "user", turn.content, turn.fields),
                Turn(turn.role, turn.content, {**turn.fields, "reasoning_content": "Hm."}),
                Turn(turn.role, turn.content, {**turn.fields, "weight": 2, "emotion": "joy"}),
                Turn(turn.role, turn.content),
            ]
        )
    )
    turns = [changed if i == position else each for i, each in enumerate(row.turns)]
    extra = data.draw(st.sampled_from([row.extra, {**row.extra, "n": 1}, {"images": ["z.png"]}]))
    tools = data.draw(st.sampled_from([row.tools, None, [{"name": "h", "arguments": {}}]]))
    other = Conversation(tuple(turns), extra=extra, tools=tools)
    assert (row.id == other.id) == (canonical(row) == canonical(other))


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=3), system=texts, before=texts)
def test_any_exchanges_in_alpaca(
    pairs: list[tuple[str, str]], system: str, before: str, tmp_path: Path
) -> None:
    line = {
        "instruction": pairs[-1][0],
        "input": before,
        "output": pairs[-1][1],
        "system": system,
        "history": pairs[:-1],
    }
    path = write(
        tmp_path / "pool.jsonl", [line, {"instruction": "keeps", "output": "the file good"}]
    )
    pool = [
        row
        for row in read_conversations(str(path), format="alpaca")
        if isinstance(row, Conversation)
    ]
    (out,) = load_exporter("alpaca", scores=False).export(selected(pool), tmp_path / "out")
    reread = read(out, "alpaca")
    assert [(conversation.turns, conversation.extra) for conversation in reread] == [
        (conversation.turns, conversation.extra) for conversation in pool
    ]
