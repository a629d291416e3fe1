"""What each format makes of its columns; expectations by hand."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import io
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deita_tasks.loading import FORMATS, layouts, read_conversations
from deita_tasks.loading.base import BadRow, RowFormat
from deita_tasks.loading.prompt_response import PAIRS
from deita_tasks.records import Conversation, SourceRow, Turn
from tests.support.loading_pools import fates, good, json_lines, read

HERE = SourceRow("memory://pool", 3)


def first(format: str) -> RowFormat:
    return layouts(format)[0]


def of(format: str, **columns: object) -> Conversation:
    return first(format).conversation(columns, HERE)


def reason(format: str, **columns: object) -> str:
    with pytest.raises(BadRow) as caught:
        of(format, **columns)
    return caught.value.reason


def said(conversation: Conversation) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in conversation.turns]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("human", "user"), ("user", "user"), ("gpt", "assistant"), ("assistant", "assistant"), ("system", "system"), ("tool", "tool"),
        ("Human", "user"), ("GPT", "assistant"),
    ],
)  # fmt: skip
def test_plain_role_names(name, role):
    found = of(
        "sharegpt", conversations=[{"from": "human", "value": "a"}, {"from": name, "value": "b"}]
    )
    assert said(found)[1] == (role, "b")
    assert found.extra == {}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("bing", "assistant"), ("bard", "assistant"), ("chatgpt", "assistant"), ("model", "assistant"), ("prompter", "user"),
        ("function_call", "assistant"), ("observation", "tool"), ("function_response", "tool"), ("function", "tool"),
        ("developer", "system"),
    ],
)  # fmt: skip
def test_role_names_that_say_more_are_kept(name, role):
    found = of(
        "sharegpt", conversations=[{"from": "human", "value": "a"}, {"from": name, "value": "b"}]
    )
    assert said(found) == [("user", "a"), (role, "b")]
    assert found.extra == {"turn_fields": [None, {"from": name}]}


def test_a_chat_column_may_have_the_other_formats_names():
    assert said(of("sharegpt", conversations=[{"role": "user", "content": "a"}])) == [("user", "a")]
    assert said(of("messages", messages=[{"from": "human", "value": "a"}])) == [("user", "a")]
    both = {
        "from": None,
        "value": None,
        "role": "user",
        "content": "a",
    }  # as Parquet has it where both occur
    assert (said(of("messages", messages=[both])), of("messages", messages=[both]).extra) == (
        [("user", "a")],
        {},
    )
    assert reason("sharegpt", conversations=[{"from": None, "value": "a"}]) == "not_text"


def test_what_a_turn_holds_beside_its_text_is_kept():
    call = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
    found = of(
        "messages",
        messages=[
            {"role": "user", "content": "a", "name": None},
            {"role": "assistant", "content": None, "tool_calls": call, "weight": 0},
            {"role": "tool", "content": "7", "tool_call_id": "1"},
        ],
        tools=[{"name": "f"}],
        turn_fields="mine",
    )
    assert said(found) == [("user", "a"), ("assistant", ""), ("tool", "7")]
    assert found.extra == {
        "tools": [{"name": "f"}],
        "turn_fields": "mine",
        "turn_fields_": [None, {"tool_calls": call, "weight": 0}, {"tool_call_id": "1"}],
    }


def test_null_content_needs_a_call():
    assert (
        reason(
            "messages",
            messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": None}],
        )
        == "not_text"
    )
    bare = [{"role": "user", "content": "a"}, {"role": "assistant", "function_call": {"name": "f"}}]
    assert said(of("messages", messages=bare)) == [("user", "a"), ("assistant", "")]


def test_parts_of_text_are_joined_with_nothing_between():
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b", "image": None}]
    assert said(of("messages", messages=[{"role": "user", "content": parts}])) == [("user", "a b")]
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
            reason("messages", messages=[{"role": "user", "content": [parts[0], odd]}])
            == "not_text"
        )


def test_a_chat_column_may_be_json_text():
    assert said(of("messages", messages='[{"role": "user", "content": "a"}]')) == [("user", "a")]
    assert reason("messages", messages="[{'role': 'user', 'content': 'a'}]") == "malformed_row"
    assert reason("messages", messages='[{"role": "user", "content": "\\u0000"}]') == "nul_byte"
    assert (
        reason("messages", messages='[{"role": "user", "content": "\\ud800"}]') == "lone_surrogate"
    )


def test_a_missing_column_is_told_from_a_null_one():
    for columns, state in (({"a": 1}, "is missing"), ({"messages": None}, "is null")):
        with pytest.raises(BadRow, match=f"the column 'messages' {state}"):
            of("messages", **columns)


def test_every_other_column_is_kept():
    assert of(
        "messages", id=7, messages=[{"role": "user", "content": "a"}], system="s", score=None
    ).extra == {
        "id": 7,
        "system": "s",
        "score": None,
    }


def test_alpaca_joins_instruction_and_input_and_an_export_can_part_them():
    found = of("alpaca", instruction="Add.", input="1\n2", output="3", id=7)
    assert said(found) == [("user", "Add.\n1\n2"), ("assistant", "3")]
    assert found.extra == {"id": 7, "input": "1\n2"}
    assert found.turns[-2].content.removesuffix("\n" + found.extra["input"]) == "Add."


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
    found = of("alpaca", instruction="Add.", output="3", **columns)
    assert (said(found), found.extra) == ([("user", "Add."), ("assistant", "3")], {})


def test_alpaca_with_history_and_system():
    found = of(
        "alpaca",
        instruction="c",
        input="d",
        output="e",
        system="s",
        history=[["a", "b"], ["", "x"]],
    )
    assert said(found) == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", ""),
        ("assistant", "x"),
        ("user", "c\nd"),
        ("assistant", "e"),
    ]
    assert said(of("alpaca", instruction="c", output="e", history='[["a", "b"]]'))[0] == (
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
    assert reason("alpaca", **{"instruction": "a", "output": "b", **columns}) == expected


def test_dolly_names_its_columns_otherwise(tmp_path):
    (found,) = good(
        read(
            tmp_path / "a",
            json_lines([{"instruction": "a", "context": "b", "response": "c", "category": "d"}]),
        )
    )
    assert (said(found), found.extra) == (
        [("user", "a\nb"), ("assistant", "c")],
        {"category": "d", "context": "b"},
    )


@pytest.mark.parametrize(("prompt", "response"), PAIRS)
def test_every_pair_of_columns_is_detected(tmp_path, prompt, response):
    (found,) = good(read(tmp_path / "a", json_lines([{response: "b", "n": 1, prompt: "a"}])))
    assert (said(found), found.extra) == ([("user", "a"), ("assistant", "b")], {"n": 1})


def test_the_pair_of_columns_is_the_files_and_not_the_rows(tmp_path):
    rows = [{"prompt": "a", "response": "b", "question": "c", "answer": "d"}] * 2 + [
        {"prompt": None, "response": "b", "question": "c", "answer": "d"}
    ]
    found = read(tmp_path / "a", json_lines(rows))
    assert fates(found) == {1: "ok", 2: "ok", 3: "missing_field"}
    assert found[0].extra == {"question": "c", "answer": "d"}


def test_prompt_and_completion_as_trl_has_them():
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    found = of(
        "prompt_response",
        prompt=prompt,
        response=[{"role": "assistant", "content": "b", "weight": 1}],
    )
    assert said(found) == [("system", "s"), ("user", "a"), ("assistant", "b")]
    assert found.extra == {"turn_fields": [None, None, {"weight": 1}]}
    assert said(of("prompt_response", prompt=prompt, response="b"))[-1] == ("assistant", "b")
    assert reason("prompt_response", prompt={"role": "user"}, response="b") == "not_text"


def test_every_format_of_the_table_is_one():
    for name in FORMATS:
        assert [layout.name for layout in layouts(name)] == [name] * len(layouts(name))
        assert all(layout.needs() for layout in layouts(name))


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
    (found,) = good(list(read_conversations(str(tmp_path / "a"))))
    assert found.extra == {
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
    (found,) = good(read(tmp_path / "a", out.getvalue()))
    assert found.turns[0] == Turn("user", "\\u0000")
