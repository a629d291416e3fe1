"""A pool that is exported in its own format and read again is the same pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deita_tasks.exporting import load_exporter
from deita_tasks.exporting.base import ExportRow
from deita_tasks.loading import read_conversations
from deita_tasks.records import ROLES, Conversation, Turn
from tests.support.report_data import AWKWARD, MULTI, SECOND, SINGLE, TOOLS

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
                {"from": "chatgpt", "value": ""},
                {"from": "human", "value": "open end"},
            ],
            "system": "a column of that name",
            "nested": {"a": [1, {"b": None}], "ü": "\u2028"},
        },
    ],
    "messages": [
        {
            "messages": [
                {"role": "user", "content": AWKWARD},
                {"role": "assistant", "content": ""},
            ],
            "prompt": "kept",
            "n": 2**70,
        },
        {
            "messages": [
                {"role": "developer", "content": "D"},
                {"role": "user", "content": "a"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "1", "function": {"name": "f"}}],
                },
                {"role": "tool", "content": "c", "tool_call_id": "1"},
                {"role": "assistant", "content": "d"},
            ]
        },
    ],
    "alpaca": [
        {"instruction": "Add", "input": "2, 2", "output": "4", "text": "Below is an instruction"},
        {"instruction": AWKWARD, "input": "", "output": ""},
        {
            "instruction": "c",
            "input": None,
            "output": "d",
            "history": [["a", "b"], ["", "x"]],
            "system": "Be brief.",
            "n": 1,
        },
    ],
    "prompt_response": [
        {"prompt": AWKWARD, "response": "b", "system": "kept", "n": 1},
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


@pytest.mark.parametrize("format", POOLS)
def test_a_pool_in_its_own_format(format: str, tmp_path: Path) -> None:
    pool = read(write(tmp_path / "pool.jsonl", POOLS[format]), format)
    (path,) = load_exporter(format, scores=False).export(selected(pool), tmp_path / "out")
    reread = read(path, format)
    assert [
        (conversation.id, conversation.turns, conversation.extra) for conversation in reread
    ] == [(conversation.id, conversation.turns, conversation.extra) for conversation in pool]


def test_a_sharegpt_row_is_the_very_row_that_was_read(tmp_path: Path) -> None:
    pool = read(write(tmp_path / "pool.jsonl", POOLS["sharegpt"]), "sharegpt")
    (path,) = load_exporter("sharegpt", scores=False).export(selected(pool), tmp_path / "out")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert lines == POOLS["sharegpt"]


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
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda part: st.lists(part, max_size=2) | st.dictionaries(texts, part, max_size=2),
)
extras = st.dictionaries(
    st.sampled_from(["id", "input", "source", "turn_fields", "deita_id", "text"]),
    values,
    max_size=3,
)
any_turns = st.lists(st.builds(Turn, st.sampled_from(ROLES), texts), max_size=4).map(
    lambda turns: (Turn("user", "q"), *turns)
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    turns=any_turns,
    extra=extras,
    format=st.sampled_from(["sharegpt", "messages", "prompt_response"]),
)
def test_any_conversation_with_any_columns(
    turns: tuple[Turn, ...], extra: dict[str, Any], format: str, tmp_path: Path
) -> None:
    original = Conversation(turns, extra=extra)
    (path,) = load_exporter(format, scores=False).export(selected([original]), tmp_path)
    (reread,) = read(path, format)
    assert (reread.turns, dict(reread.extra)) == (original.turns, extra)


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
