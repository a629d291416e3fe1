"""The content of each output format, read by independent readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.errors import UsageError
from deita_tasks.exporting import load_exporter
from deita_tasks.exporting.base import ExportRow
from tests.support.report_data import AWKWARD, MULTI, SECOND, SINGLE, TOOLS, conversation, rows

ADDED = {"deita_id", "deita_evol_score", "deita_rank"}


def exported(
    name: str, selected: list[ExportRow], folder: Path, **options: Any
) -> list[dict[str, Any]]:
    """Export, and return the lines of selected.jsonl as the plain JSON reader reads them."""
    assert load_exporter(name, **options).export(selected, folder) == [folder / "selected.jsonl"]
    return [json.loads(line) for line in (folder / "selected.jsonl").read_bytes().split(b"\n")[:-1]]


def test_sharegpt_holds_every_role_and_the_exact_text(tmp_path: Path) -> None:
    first, second = exported("sharegpt", rows(TOOLS, SECOND), tmp_path, scores=False)
    assert first == {
        "conversations": [
            {"from": "human", "value": "Weather?"},
            {"from": "gpt", "value": "call"},
            {"from": "observation", "value": "21 C"},
            {"from": "gpt", "value": "Warm"},
            {"from": "system", "value": "stop"},
            {"from": "human", "value": "thanks"},
        ]
    }
    assert second == {
        "conversations": [
            {"from": "human", "value": AWKWARD},
            {"from": "gpt", "value": " starts with a space\n\n"},
        ],
        "id": 8,
        "tags": [],
        "score": 0.1 + 0.2,
    }


def test_messages_come_in_the_given_order_with_id_score_and_rank(tmp_path: Path) -> None:
    first, second = exported("messages", rows(MULTI, SINGLE), tmp_path)
    assert [turn["role"] for turn in first["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert (first["deita_id"], first["deita_evol_score"], first["deita_rank"]) == (
        MULTI.id,
        10.0,
        1,
    )
    assert first["nested"] == {"a": [1, {"b": None}]}
    assert second == {
        "messages": [
            {"role": "user", "content": "What is 2 + 2?"},
            {"role": "assistant", "content": "4"},
        ],
        "id": 7,
        "tags": ["maths", "easy"],
        "nothing": None,
        "deita_id": SINGLE.id,
        "deita_evol_score": 9.0,
        "deita_rank": 2,
    }


def test_alpaca_of_single_turns_has_only_its_three_columns(tmp_path: Path) -> None:
    (row,) = exported("alpaca", rows(conversation("u: Add", "a: 4")), tmp_path, scores=False)
    assert row == {"instruction": "Add", "input": "", "output": "4"}


def test_alpaca_puts_system_and_earlier_exchanges_in_their_columns_in_every_row(
    tmp_path: Path,
) -> None:
    first, second = exported(
        "alpaca", rows(MULTI, conversation("u: Add", "a: 4")), tmp_path, scores=False
    )
    assert {
        name: first[name] for name in ("instruction", "input", "output", "system", "history")
    } == {
        "instruction": "And?",
        "input": "",
        "output": "Bye",
        "system": "Be brief.",
        "history": [["Hi", "Hello"]],
    }
    assert second == {"instruction": "Add", "input": "", "output": "4", "system": "", "history": []}


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        (("u: a", "a: b", "t: c", "a: d"), "turn 3 has the role tool; expected user"),
        (
            ("u: a", "a: b", "s: c", "u: d", "a: e"),
            "turn 3 has the role system; expected user",
        ),
        (("s: a", "s: b", "u: c", "a: d"), "turn 2 has the role system; expected user"),
        (("u: a", "u: b", "a: c"), "turn 2 has the role user; expected assistant"),
        (("a: a", "u: b", "a: c"), "turn 1 has the role assistant; expected user"),
        (("u: a", "a: b", "u: c"), "it does not end with an assistant turn"),
        (("s: a",), "it does not end with an assistant turn"),
        (("s: ", "u: a", "a: b"), "turn 1 is a system turn without a text"),
    ],
)
def test_alpaca_refuses_what_it_cannot_hold_before_anything_is_written(
    turns: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    odd = conversation(*turns, row=77)
    with pytest.raises(UsageError) as caught:
        load_exporter("alpaca").export(rows(SINGLE, odd), tmp_path)
    message = str(caught.value)
    assert (
        f"output format alpaca cannot hold row 77 of pool.jsonl (id {odd.id}): {problem}" in message
    )
    assert "choose messages or sharegpt" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("column", ["input", "context"])
def test_alpaca_parts_an_input_from_the_instruction_again(column: str, tmp_path: Path) -> None:
    """Loading joins instruction and input in the user's text."""
    row = {"instruction": "Add", column: "2, 2", "n": 1}
    whole = Conversation((Turn("user", "Add\n2, 2"), Turn("assistant", "4")), row=row)
    other = {"input": "of another meaning", "system": 7, "history": 3}
    unrelated = conversation("u: Add", "a: 4", extra=other)
    first, second = exported("alpaca", rows(whole, unrelated), tmp_path, scores=False)
    assert first == {"instruction": "Add", "input": "2, 2", "output": "4"}
    assert second == {
        "instruction": "Add",
        "input": "",
        "output": "4",
        "input_input": "of another meaning",
        "input_system": 7,
        "input_history": 3,
    }


def test_alpaca_refuses_a_turn_that_is_more_than_its_text(tmp_path: Path) -> None:
    call = {"tool_calls": [{"function": {"name": "f"}}]}
    odd = Conversation((Turn("user", "a"), Turn("assistant", "b", call)))
    with pytest.raises(UsageError, match="its turns hold tool_calls beside their text"):
        load_exporter("alpaca").export(rows(odd), tmp_path)


def test_prompt_response_is_text_where_every_row_is_one_exchange(tmp_path: Path) -> None:
    (row,) = exported("prompt_response", rows(SECOND), tmp_path, scores=False)
    assert row == {
        "prompt": AWKWARD,
        "response": " starts with a space\n\n",
        "id": 8,
        "tags": [],
        "score": 0.1 + 0.2,
    }


def test_prompt_response_is_lists_of_turns_in_every_row_where_one_needs_it(tmp_path: Path) -> None:
    plain, multi, tools, alone = exported(
        "prompt_response", rows(SINGLE, MULTI, TOOLS, conversation("a: x", "u: y")), tmp_path
    )
    assert plain["prompt"] == [{"role": "user", "content": "What is 2 + 2?"}]
    assert plain["response"] == [{"role": "assistant", "content": "4"}]
    assert [turn["content"] for turn in multi["prompt"]] == ["Be brief.", "Hi", "Hello", "And?"]
    assert multi["response"] == [{"role": "assistant", "content": "Bye"}]
    assert (len(tools["prompt"]), tools["response"]) == (6, [])
    assert ([turn["role"] for turn in alone["prompt"]], alone["response"]) == (
        ["assistant", "user"],
        [],
    )


CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
CALLING = Conversation(
    (
        Turn("developer", "Be brief."),
        Turn("user", "a", {"name": "Ada"}),
        Turn("assistant", "", {"tool_calls": [CALL], "weight": 0}),
        Turn("tool", "21 C", {"tool_call_id": "1"}),
        Turn("assistant", "d", {"reasoning_content": "Hm."}),
    ),
    extra={"n": 1},
    tools='[{"name": "f"}]',
)


def test_messages_hold_what_turns_have_beside_their_text(tmp_path: Path) -> None:
    (row,) = exported("messages", rows(CALLING), tmp_path, scores=False)
    assert row == {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "a", "name": "Ada"},
            {"role": "assistant", "content": "", "tool_calls": [CALL], "weight": 0},
            {"role": "tool", "content": "21 C", "tool_call_id": "1"},
            {"role": "assistant", "content": "d", "reasoning_content": "Hm."},
        ],
        "tools": [{"name": "f"}],
        "n": 1,
    }


def test_sharegpt_has_roles_of_its_own_for_calls_and_their_outputs(tmp_path: Path) -> None:
    (row,) = exported("sharegpt", rows(CALLING), tmp_path, scores=False)
    assert row == {
        "conversations": [
            {"from": "system", "value": "Be brief.", "role": "developer"},
            {"from": "human", "value": "a", "name": "Ada"},
            {
                "from": "function_call",
                "value": '{"name": "f", "arguments": {"x": 1}}',
                "weight": 0,
            },
            {"from": "observation", "value": "21 C", "tool_call_id": "1"},
            {"from": "gpt", "value": "d", "reasoning_content": "Hm."},
        ],
        "tools": '[{"name": "f"}]',
        "n": 1,
    }


def test_sharegpt_keeps_calls_that_its_text_does_not_say(tmp_path: Path) -> None:
    calls = [{"id": "1", **CALL}, {"id": "2", "function": {"name": "g", "arguments": "{}"}}]
    called = Conversation((Turn("user", "a"), Turn("assistant", "", {"tool_calls": calls})))
    (row,) = exported("sharegpt", rows(called), tmp_path, scores=False)
    assert row["conversations"][1] == {
        "from": "function_call",
        "value": '[{"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {}}]',
        "tool_calls": calls,
    }


def test_a_field_with_the_name_of_a_key_gets_another_one(tmp_path: Path) -> None:
    odd = Conversation((Turn("user", "a", {"content": 1, "value": 2}), Turn("assistant", "b")))
    (row,) = exported("messages", rows(odd), tmp_path / "m", scores=False)
    first = {"role": "user", "content": "a", "input_content": 1, "value": 2}
    assert row["messages"][0] == first
    (row,) = exported("sharegpt", rows(odd), tmp_path / "s", scores=False)
    first = {"from": "human", "value": "a", "content": 1, "input_value": 2}
    assert row["conversations"][0] == first


def test_content_with_an_image_is_a_list_of_parts_in_messages(tmp_path: Path) -> None:
    parts = [{"type": "image", "image": "x.png"}, {"type": "text", "text": "What?"}]
    seen = Conversation(
        (Turn("user", "What?", {"content_parts": parts}), Turn("assistant", "An owl."))
    )
    (row,) = exported("messages", rows(seen), tmp_path, scores=False)
    assert row["messages"][0] == {"role": "user", "content": parts}


def test_parquet_has_the_fields_of_all_turns(tmp_path: Path) -> None:
    other = {"type": "function", "function": {"name": "g", "arguments": {"y": "z"}}}
    calling = Conversation((Turn("user", "a"), Turn("assistant", "b", {"tool_calls": [other]})))
    path = load_exporter("parquet", scores=False).export(rows(CALLING, calling), tmp_path)[0]
    table = pq.read_table(path)
    turn = table.schema.field("messages").type.value_type
    assert {turn.field(i).name: str(turn.field(i).type) for i in range(turn.num_fields)} == {
        "role": "string",
        "content": "string",
        "name": "string",
        "tool_calls": (
            "list<element: struct<type: string, function: struct<name: string, "
            "arguments: extension<arrow.json>>>>"
        ),
        "weight": "int64",
        "tool_call_id": "string",
        "reasoning_content": "string",
    }
    first = table["messages"].to_pylist()[0]
    assert first[2]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert (first[0]["tool_calls"], first[4]["reasoning_content"]) == (None, "Hm.")
    assert table["tools"].to_pylist() == [[{"name": "f"}], None]


def test_numbers_that_no_type_holds_together_become_json_text(tmp_path: Path) -> None:
    values: list[Any] = [2**53 + 1, 0.5, 3, {"a": 1}, [1], "x", True, None]
    for pair, stored in (
        ((2**53 + 1, 0.5), "extension<arrow.json>"),
        ((3, 0.5), "double"),
        ((3, 2**53 + 1), "int64"),
        ((3, True), "extension<arrow.json>"),
        (values, "extension<arrow.json>"),
    ):
        pool = [conversation(f"u: {i}", "a: b", extra={"n": n}) for i, n in enumerate(pair)]
        path = load_exporter("parquet", scores=False).export(rows(*pool), tmp_path)[0]
        column = pq.read_table(path)["n"]
        assert str(column.type) == stored
        texts = column.to_pylist()
        is_text = stored.startswith("extension")
        read = [json.loads(text) if is_text and text is not None else text for text in texts]
        assert read == list(pair)


def test_input_columns_are_never_overwritten(tmp_path: Path) -> None:
    """A pool of an earlier selection has deita_ columns; a converted one may have `messages`."""
    old = conversation(
        "u: a",
        "a: b",
        extra={"messages": "as text", "input_messages": 1, "deita_rank": 5, "deita_rank_2": 6},
    )
    plain, first = exported("messages", rows(conversation("u: c", "a: d"), old), tmp_path)
    assert first["input_input_messages"] == "as text"
    assert first["input_messages"] == 1
    assert (first["deita_rank"], first["deita_rank_2"], first["deita_rank_3"]) == (5, 6, 2)
    assert first["deita_id"] == old.id
    assert plain.keys() == {"messages", "deita_id", "deita_evol_score", "deita_rank_3"}, (
        "one name in every row"
    )


def test_lines_are_strict_json_in_utf8_whatever_the_columns_hold(tmp_path: Path) -> None:
    odd = {"nan": float("nan"), "deep": [{"inf": float("inf")}], "lone": "\ud800 ü", "big": 2**70}
    path = load_exporter("messages", scores=False).export(
        rows(conversation("u: ü", "a: b", extra=odd)), tmp_path
    )[0]
    (line,) = path.read_bytes().splitlines()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads(line.decode("utf-8"), parse_constant=refuse)
    del row["messages"]
    assert row == {"nan": None, "deep": [{"inf": None}], "lone": "\ud800 ü", "big": 2**70}


def test_parquet_keeps_types_where_one_type_holds_a_column_and_json_text_elsewhere(
    tmp_path: Path,
) -> None:
    extras: list[dict[str, Any]] = [
        {
            "n": 1,
            "x": 1,
            "s": "ü",
            "l": ["a"],
            "o": {"k": 1, "j": None},
            "m": 1,
            "u": {"a": 1},
            "b": True,
            "big": 1,
            "e": {},
            "lone": "\ud800",
        },
        {
            "n": 2,
            "x": 0.5,
            "s": None,
            "l": [],
            "o": {"j": [1], "k": 2},
            "m": "one",
            "u": {"b": 1},
            "b": None,
            "big": 2**70,
            "e": {},
            "lone": "ü",
        },
    ]
    selected = rows(
        *(conversation(f"u: {i}", "a: b", extra=extra) for i, extra in enumerate(extras))
    )
    (path,) = load_exporter("parquet").export(selected, tmp_path)
    assert path == tmp_path / "selected.parquet"
    table = pq.read_table(path)
    assert {name: str(table.schema.field(name).type) for name in ("n", "x", "s", "b")} == {
        "n": "int64",
        "x": "double",
        "s": "string",
        "b": "bool",
    }
    read = table.to_pylist()
    for row, extra in zip(read, extras, strict=True):
        for name in ("n", "x", "s", "l", "o", "b"):
            assert row[name] == extra[name]
        for name in ("m", "u", "big", "e", "lone"):
            assert json.loads(row[name]) == extra[name]
    assert read[1]["messages"] == [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "b"},
    ]
    assert [row["deita_rank"] for row in read] == [1, 2]


def test_parquet_spans_row_groups_and_fills_absent_columns_with_null(tmp_path: Path) -> None:
    conversations = [
        conversation(f"u: {i}", "a: b", extra={"late": i} if i > 4000 else {}) for i in range(4100)
    ]
    (path,) = load_exporter("parquet").export(rows(*conversations), tmp_path)
    late = pq.read_table(path)["late"].to_pylist()
    assert pq.ParquetFile(path).num_row_groups == 3
    assert late == [None] * 4001 + list(range(4001, 4100))


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(
        UsageError,
        match=r"unknown output format 'share_gpt': expected one of .* did you mean 'sharegpt'",
    ):
        load_exporter("share_gpt")


@pytest.mark.parametrize("name", ["parquet", "hf_dataset"])
def test_a_table_of_too_many_columns_is_refused_before_anything_is_written(
    name: str, tmp_path: Path
) -> None:
    """800,000 columns took 135 s; JSON Lines, which holds what each row has, took 6 s."""
    crowded = [
        conversation("u: a", "a: b", row=row, extra={f"{row}-{i}": i for i in range(6_000)})
        for row in (1, 2)
    ]
    load_exporter(name).export(rows(crowded[0]), tmp_path / "one")
    with pytest.raises(UsageError, match=r"row 2 of .* there are over 10,000 columns.* choose"):
        load_exporter(name).export(rows(*crowded), tmp_path / "two")
    assert not (tmp_path / "two").exists()
    assert len(exported("sharegpt", rows(*crowded), tmp_path)) == 2
