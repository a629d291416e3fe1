"""How each format reads its columns; the expectations are written by hand."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import io
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deita_tasks.loading import load_layouts, read_conversations
from deita_tasks.loading.base import BadRow, RowFormat
from deita_tasks.loading.prompt_response import COLUMN_PAIRS
from deita_tasks.records import Conversation, SourceRow, Turn
from tests.support.loading_pools import fates, good, json_lines, read

HERE = SourceRow("memory://pool", 3)


def first(format: str) -> RowFormat:
    return load_layouts(format)[0]


def convert(format: str, **columns: object) -> Conversation:
    return first(format).conversation(columns, HERE)


def bad_row_reason(format: str, **columns: object) -> str:
    with pytest.raises(BadRow) as caught:
        convert(format, **columns)
    return caught.value.reason


def turn_pairs(conversation: Conversation) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in conversation.turns]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("human", "user"),
        ("user", "user"),
        ("gpt", "assistant"),
        ("assistant", "assistant"),
        ("system", "system"),
        ("tool", "tool"),
        ("Human", "user"),
        ("GPT", "assistant"),
    ],
)
def test_plain_role_names(name, role):
    conversation = convert(
        "sharegpt", conversations=[{"from": "human", "value": "a"}, {"from": name, "value": "b"}]
    )
    assert turn_pairs(conversation)[1] == (role, "b")
    assert conversation.extra == {}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("bing", "assistant"),
        ("bard", "assistant"),
        ("chatgpt", "assistant"),
        ("model", "assistant"),
        ("prompter", "user"),
        ("function_call", "assistant"),
        ("observation", "tool"),
        ("function_response", "tool"),
        ("function", "tool"),
        ("developer", "system"),
    ],
)
def test_role_names_that_say_more_are_kept(name, role):
    conversation = convert(
        "sharegpt", conversations=[{"from": "human", "value": "a"}, {"from": name, "value": "b"}]
    )
    assert turn_pairs(conversation) == [("user", "a"), (role, "b")]
    assert conversation.extra == {"turn_fields": [None, {"from": name}]}


def test_a_chat_column_may_have_the_other_formats_names():
    assert turn_pairs(convert("sharegpt", conversations=[{"role": "user", "content": "a"}])) == [
        ("user", "a")
    ]
    assert turn_pairs(convert("messages", messages=[{"from": "human", "value": "a"}])) == [
        ("user", "a")
    ]
    both = {
        "from": None,
        "value": None,
        "role": "user",
        "content": "a",
    }  # as Parquet has it where both occur
    assert (
        turn_pairs(convert("messages", messages=[both])),
        convert("messages", messages=[both]).extra,
    ) == (
        [("user", "a")],
        {},
    )
    assert bad_row_reason("sharegpt", conversations=[{"from": None, "value": "a"}]) == "not_text"


def test_what_a_turn_holds_beside_its_text_is_kept():
    call = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
    conversation = convert(
        "messages",
        messages=[
            {"role": "user", "content": "a", "name": None},
            {"role": "assistant", "content": None, "tool_calls": call, "weight": 0},
            {"role": "tool", "content": "7", "tool_call_id": "1"},
        ],
        tools=[{"name": "f"}],
        turn_fields="mine",
    )
    assert turn_pairs(conversation) == [("user", "a"), ("assistant", ""), ("tool", "7")]
    assert conversation.extra == {
        "tools": [{"name": "f"}],
        "turn_fields": "mine",
        "turn_fields_": [None, {"tool_calls": call, "weight": 0}, {"tool_call_id": "1"}],
    }


def test_null_content_needs_a_call():
    assert (
        bad_row_reason(
            "messages",
            messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": None}],
        )
        == "not_text"
    )
    bare = [{"role": "user", "content": "a"}, {"role": "assistant", "function_call": {"name": "f"}}]
    assert turn_pairs(convert("messages", messages=bare)) == [("user", "a"), ("assistant", "")]


def test_parts_of_text_are_joined_with_nothing_between():
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b", "image": None}]
    assert turn_pairs(convert("messages", messages=[{"role": "user", "content": parts}])) == [
        ("user", "a b")
    ]
    for odd in (
        {"type": "image"},
        {"type": "text", "text": 1},
        {"type": "text", "text": "a", "cache": 1},
        {"text": "a"},
        "a",
        None,
        {"type": []},
    ):
        assert (
            bad_row_reason("messages", messages=[{"role": "user", "content": [parts[0], odd]}])
            == "not_text"
        )


def test_a_chat_column_may_be_json_text():
    assert turn_pairs(convert("messages", messages='[{"role": "user", "content": "a"}]')) == [
        ("user", "a")
    ]
    assert (
        bad_row_reason("messages", messages="[{'role': 'user', 'content': 'a'}]") == "malformed_row"
    )
    assert (
        bad_row_reason("messages", messages='[{"role": "user", "content": "\\u0000"}]')
        == "nul_byte"
    )
    assert (
        bad_row_reason("messages", messages='[{"role": "user", "content": "\\ud800"}]')
        == "lone_surrogate"
    )


def test_every_other_column_is_kept():
    assert convert(
        "messages", id=7, messages=[{"role": "user", "content": "a"}], system="s", score=None
    ).extra == {
        "id": 7,
        "system": "s",
        "score": None,
    }


def test_alpaca_joins_instruction_and_input_and_an_export_can_part_them():
    conversation = convert("alpaca", instruction="Add.", input="1\n2", output="3", id=7)
    assert turn_pairs(conversation) == [("user", "Add.\n1\n2"), ("assistant", "3")]
    assert conversation.extra == {"id": 7, "input": "1\n2"}
    assert conversation.turns[-2].content.removesuffix("\n" + conversation.extra["input"]) == "Add."


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"input": ""},
        {"input": None, "history": None, "system": None},
        {"history": [], "system": ""},
    ],
)
def test_alpaca_without_input(columns):
    conversation = convert("alpaca", instruction="Add.", output="3", **columns)
    assert (turn_pairs(conversation), conversation.extra) == (
        [("user", "Add."), ("assistant", "3")],
        {},
    )


def test_alpaca_with_history_and_system():
    conversation = convert(
        "alpaca",
        instruction="c",
        input="d",
        output="e",
        system="s",
        history=[["a", "b"], ["", "x"]],
    )
    assert turn_pairs(conversation) == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", ""),
        ("assistant", "x"),
        ("user", "c\nd"),
        ("assistant", "e"),
    ]
    assert turn_pairs(convert("alpaca", instruction="c", output="e", history='[["a", "b"]]'))[
        0
    ] == (
        "user",
        "a",
    )


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"instruction": None}, "missing_field"),
        ({"instruction": 1}, "not_text"),
        ({"output": ["a"]}, "not_text"),
        ({"input": {}}, "not_text"),
        ({"system": 0}, "not_text"),
        ({"history": "nonsense"}, "malformed_row"),
        ({"history": [["a"]]}, "malformed_row"),
        ({"history": ["ab"]}, "malformed_row"),
        ({"history": {"a": 1}}, "malformed_row"),
        ({"history": [["a", None]]}, "not_text"),
        ({"instruction": " ", "output": "\n"}, "empty_conversation"),
    ],
)
def test_odd_alpaca(columns, expected):
    assert bad_row_reason("alpaca", **{"instruction": "a", "output": "b", **columns}) == expected


def test_dolly_names_its_columns_otherwise(tmp_path):
    (conversation,) = good(
        read(
            tmp_path / "a",
            json_lines([{"instruction": "a", "context": "b", "response": "c", "category": "d"}]),
        )
    )
    assert (turn_pairs(conversation), conversation.extra) == (
        [("user", "a\nb"), ("assistant", "c")],
        {"category": "d", "context": "b"},
    )


@pytest.mark.parametrize(("prompt", "response"), COLUMN_PAIRS)
def test_every_pair_of_columns_is_detected(tmp_path, prompt, response):
    (conversation,) = good(read(tmp_path / "a", json_lines([{response: "b", "n": 1, prompt: "a"}])))
    assert (turn_pairs(conversation), conversation.extra) == (
        [("user", "a"), ("assistant", "b")],
        {"n": 1},
    )


def test_the_pair_of_columns_is_the_files_and_not_the_rows(tmp_path):
    rows = [{"prompt": "a", "response": "b", "question": "c", "answer": "d"}] * 2 + [
        {"prompt": None, "response": "b", "question": "c", "answer": "d"}
    ]
    rows_read = read(tmp_path / "a", json_lines(rows))
    assert fates(rows_read) == {1: "ok", 2: "ok", 3: "missing_field"}
    assert rows_read[0].extra == {"question": "c", "answer": "d"}


def test_prompt_and_completion_as_trl_has_them():
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    conversation = convert(
        "prompt_response",
        prompt=prompt,
        response=[{"role": "assistant", "content": "b", "weight": 1}],
    )
    assert turn_pairs(conversation) == [("system", "s"), ("user", "a"), ("assistant", "b")]
    assert conversation.extra == {"turn_fields": [None, None, {"weight": 1}]}
    assert turn_pairs(convert("prompt_response", prompt=prompt, response="b"))[-1] == (
        "assistant",
        "b",
    )
    assert bad_row_reason("prompt_response", prompt={"role": "user"}, response="b") == "not_text"


def test_values_of_parquet_become_json_values(tmp_path):
    stamp = dt.datetime(2024, 2, 29, 12, 30, 0, 5, tzinfo=dt.UTC)
    key = uuid.UUID(int=5)
    columns = {
        "prompt": pa.array(["a"]),
        "response": pa.array(["b"], pa.large_string()),
        "stamp": pa.array([stamp], pa.timestamp("us", "UTC")),
        "nanos": pa.array([1], pa.timestamp("ns")),
        "day": pa.array([dt.date(2024, 2, 29)]),
        "time": pa.array([dt.time(1, 2, 3)]),
        "span": pa.array([dt.timedelta(hours=1, milliseconds=500)]),
        "bytes": pa.array([b"\0\xff"]),
        "nan": pa.array([float("nan")]),
        "inf": pa.array([float("-inf")]),
        "half": pa.array([0.5], pa.float32()),
        "huge": pa.array([2**64 - 1], pa.uint64()),
        "decimal": pa.array([decimal.Decimal("1.10")]),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "deep": pa.array([{"x": [{"y": None, "z": b"a"}]}]),
        "kind": pa.array(["k"]).dictionary_encode(),
        "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([key.bytes], pa.binary(16))),
        "none": pa.nulls(1),
    }
    pq.write_table(pa.table(columns), tmp_path / "a")
    (conversation,) = good(list(read_conversations(str(tmp_path / "a"))))
    assert conversation.extra == {
        "stamp": "2024-02-29T12:30:00.000005+00:00",
        "nanos": "1970-01-01T00:00:00.000000001",
        "day": "2024-02-29",
        "time": "01:02:03",
        "span": 3600.5,
        "bytes": base64.b64encode(b"\0\xff").decode(),
        "nan": None,
        "inf": None,
        "half": 0.5,
        "huge": 2**64 - 1,
        "decimal": "1.10",
        "map": [["k", 1]],
        "deep": {"x": [{"y": None, "z": "YQ=="}]},
        "kind": "k",
        "uuid": str(key),
        "none": None,
    }


def test_a_timestamp_that_python_cannot_hold_is_a_bad_row_and_no_crash(tmp_path):
    table = pa.table(
        {
            "prompt": ["a", "b"],
            "response": ["a", "b"],
            "at": pa.array([0, 2**62], pa.timestamp("us")),
        }
    )
    pq.write_table(table, tmp_path / "a")
    assert fates(list(read_conversations(str(tmp_path / "a")))) == {1: "ok", 2: "malformed_row"}


def test_a_text_of_six_characters_that_looks_like_a_nul_is_fine_in_parquet(tmp_path):
    out = io.BytesIO()
    pq.write_table(pa.table({"prompt": ["\\u0000"], "response": ["b"]}), out)
    (conversation,) = good(read(tmp_path / "a", out.getvalue()))
    assert conversation.turns[0] == Turn("user", "\\u0000")
