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

from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.loading import load_layouts, read_conversations
from deita_tasks.loading.base import BadRow, RowFormat
from deita_tasks.loading.prompt_response import COLUMN_PAIRS
from tests.support.loading_pools import fates, good, json_lines, read

HERE = SourceRow("memory://pool", 3)
F = {"name": "f", "arguments": {"x": 1}}


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


def answered(*turns: dict[str, object], key: str = "messages") -> dict[str, object]:
    """A row with these turns, a question and its answer."""
    return {key: [*turns, *CHAT]}


CHAT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
WHY = [("user", "Why?"), ("assistant", "Because.")]


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
        ("bing", "assistant"),
        ("bard", "assistant"),
        ("chatgpt", "assistant"),
        ("AI", "assistant"),
        ("gpt4", "assistant"),
        ("gpt-4o-mini", "assistant"),
        ("claude", "assistant"),
        ("Claude 3 Opus", "assistant"),
        ("model", "assistant"),
        ("prompter", "user"),
        ("observation", "tool"),
        ("function_response", "tool"),
        ("tool-response", "tool"),
        ("function", "tool"),
        ("developer", "developer"),
    ],
)
def test_role_names(name, role):
    turn = {"from": name, "value": "b"}
    conversation = convert("sharegpt", **answered(turn, key="conversations"))
    assert turn_pairs(conversation) == [(role, "b"), *WHY]
    assert conversation.extra == {}
    assert conversation.turns[0].fields == {}


def test_a_chat_column_may_have_the_other_formats_names():
    chat = {"role": "user", "content": "a"}
    sharegpt = {"from": "human", "value": "a"}
    # As Parquet has it where both occur.
    both = {"from": None, "value": None, "role": "user", "content": "a"}
    for turn in (chat, sharegpt, both):
        for format, column in (("sharegpt", "conversations"), ("messages", "messages")):
            conversation = convert(format, **answered(turn, key=column))
            assert turn_pairs(conversation) == [("user", "a"), *WHY]
    assert bad_row_reason("sharegpt", conversations=[{"from": None, "value": "a"}]) == "not_text"


def test_a_key_of_the_other_format_is_a_field_beside_a_whole_turn():
    turn = {"role": "user", "content": "a", "from": "the web"}
    assert convert("messages", **answered(turn)).turns[0] == Turn("user", "a", {"from": "the web"})
    turn = {"from": "human", "value": "a", "role": "student"}
    assert convert("messages", **answered(turn)).turns[0] == Turn("user", "a", {"role": "student"})


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
    )
    assert conversation.turns == (
        Turn("user", "a"),
        Turn("assistant", "", {"tool_calls": call, "weight": 0}),
        Turn("tool", "7", {"tool_call_id": "1"}),
    )
    assert conversation.tools == [{"name": "f"}]
    assert conversation.extra == {}


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (
            '{"name": "f", "arguments": {"x": 1}}',
            {"tool_calls": [{"type": "function", "function": F}]},
        ),
        (
            '[{"name": "f", "arguments": {"x": 1}}]',
            {"tool_calls": [{"type": "function", "function": F}]},
        ),
        ("<call> f(1)", {"function_call": "<call> f(1)"}),
        ('{"f": 1}', {"function_call": '{"f": 1}'}),
    ],
)
def test_a_function_call_of_sharegpt_is_a_call(value, fields):
    turns = [{"from": "human", "value": "a"}, {"from": "function_call", "value": value}]
    conversation = convert("sharegpt", conversations=turns)
    assert conversation.turns == (Turn("user", "a"), Turn("assistant", "", fields))
    assert [pair.response for pair in conversation.pairs] == [value.strip("[]")]


def test_null_content_needs_a_call_or_a_thought():
    user = {"role": "user", "content": "a"}
    silent = [user, {"role": "assistant", "content": None}]
    assert bad_row_reason("messages", messages=silent) == "not_text"
    bare = [user, {"role": "assistant", "function_call": {"name": "f"}}]
    assert turn_pairs(convert("messages", messages=bare)) == [("user", "a"), ("assistant", "")]
    thought = [user, {"role": "assistant", "content": None, "reasoning_content": "Hm."}]
    assert bad_row_reason("messages", messages=thought) == "no_answer"


def test_parts_of_text_are_joined_with_nothing_between():
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b", "image": None}]
    for more in ([], [{"text": ""}], [""], [{"type": "input_text", "text": "", "cache": 1}]):
        content = [*parts, *more]
        conversation = convert("messages", **answered({"role": "user", "content": content}))
        assert conversation.turns[0] == Turn("user", "a b")
    for odd in ({"type": "text", "text": 1}, {"type": "poem"}, None, 1, {"type": []}, {}):
        content = [parts[0], odd]
        assert bad_row_reason("messages", messages=[{"role": "user", "content": content}]) == (
            "not_text"
        )


def test_parts_with_media_are_kept_beside_their_text():
    picture = {"type": "image_url", "image_url": {"url": "x.png"}}
    for part in (picture, {"type": "image", "image": "x.png"}, {"image": "x.png"}):
        content = [part, {"type": "text", "text": "What?"}]
        conversation = convert("messages", **answered({"role": "user", "content": content}))
        (kept, text) = conversation.turns[0].fields["content_parts"]
        assert conversation.turns[0].content == "What?"
        assert (kept.items() >= part.items(), text) == (True, content[1])
        assert conversation.media == 1


def test_a_placeholder_of_an_image_is_not_counted_beside_its_column():
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    row = answered({"role": "user", "content": content})
    assert convert("messages", **row, images=["a.png", "b.png"]).media == 2


def test_parts_of_tools_and_thoughts_are_read_as_what_they_are():
    conversation = convert(
        "messages",
        messages=[
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Ask."},
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "content": "21 C"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Warm."}]},
        ],
    )
    call = {"id": "1", "type": "function", "function": F}
    assert conversation.turns == (
        Turn("user", "Weather?"),
        Turn("assistant", "Let me see.", {"reasoning_content": "Ask.", "tool_calls": [call]}),
        Turn("tool", "21 C"),
        Turn("assistant", "Warm."),
    )
    assert conversation.pairs == [("Weather?", "Let me see.\n\nWarm.")]


def test_what_tools_answered_is_no_word_of_the_user():
    results = [
        {"type": "tool_result", "tool_use_id": "1", "content": "21 C"},
        {"type": "tool_result", "tool_use_id": "2", "content": "Rain."},
    ]
    call = {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}}
    tools = (
        Turn("tool", "21 C", {"tool_call_id": "1"}),
        Turn("tool", "Rain.", {"tool_call_id": "2"}),
    )
    user = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": [call]}]
    said = {"type": "text", "text": "Is it warm?"}
    answer = {"role": "assistant", "content": "Yes."}
    asked = convert(
        "messages", messages=[*user, {"role": "user", "content": [*results, said]}, answer]
    )
    assert asked.turns[2:] == (*tools, Turn("user", "Is it warm?"), Turn("assistant", "Yes."))
    assert asked.pairs[1] == ("Is it warm?", "Yes.")
    parts = [call, *results, {"type": "text", "text": "Warm and wet."}]
    alone = convert("messages", messages=[user[0], {"role": "assistant", "content": parts}])
    assert alone.turns[2:] == (*tools, Turn("assistant", "Warm and wet."))
    assert alone.pairs == [("Weather?", "Warm and wet.")]


def test_a_chat_column_may_be_json_text():
    text = '[{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]'
    assert turn_pairs(convert("messages", messages=text)) == WHY
    for wrong, reason in (
        (text.replace('"', "'"), "malformed_row"),
        (text.replace("Why?", "\\u0000"), "nul_byte"),
        (text.replace("Why?", "\\ud800"), "lone_surrogate"),
    ):
        assert bad_row_reason("messages", messages=wrong) == reason


def test_every_other_column_is_kept():
    conversation = convert("messages", id=7, **answered(), score=None, system={"os": "linux"})
    assert conversation.extra == {"id": 7, "score": None, "system": {"os": "linux"}}
    assert list(conversation.row) == ["id", "messages", "score", "system"]


@pytest.mark.parametrize("column", ["system", "system_prompt", "system_message"])
@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("messages", {"messages": CHAT}),
        ("sharegpt", {"conversations": CHAT}),
        ("alpaca", {"instruction": "Why?", "output": "Because."}),
        ("prompt_response", {"prompt": "Why?", "response": "Because."}),
    ],
)
def test_a_column_with_a_system_prompt_is_its_turn(column, format, row):
    conversation = convert(format, **row, **{column: "Be brief."})
    assert turn_pairs(conversation) == [("system", "Be brief."), *WHY]
    assert conversation.extra == {}
    parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
    assert convert(format, **row, **{column: parts}).turns == conversation.turns
    for empty in ("", None, " "):
        assert turn_pairs(convert(format, **row, **{column: empty})) == WHY


def test_a_system_prompt_that_is_a_turn_as_well_is_one_turn():
    row = answered({"role": "system", "content": "Be brief."})
    conversation = convert("messages", **row, system="Be brief.")
    assert turn_pairs(conversation) == [("system", "Be brief."), *WHY]


@pytest.mark.parametrize("column", ["tools", "functions"])
@pytest.mark.parametrize("tools", [[{"name": "f"}], '[{"name": "f"}]'])
def test_tools_are_the_same_in_a_column_and_in_a_turn(column, tools):
    in_column = convert("messages", **answered(), **{column: tools})
    first, second = CHAT
    in_turn = convert("messages", messages=[{**first, column: tools}, second])
    assert in_column.tools == in_turn.tools == tools
    assert in_column.id == in_turn.id != convert("messages", **answered()).id
    assert in_column.extra == {}


def test_tools_may_be_a_list_of_json_texts():
    texts = convert("messages", **answered(), tools=['{"name": "f"}'])
    assert texts.id == convert("messages", **answered(), tools=[{"name": "f"}]).id
    assert texts.id != convert("messages", **answered(), tools=['{"name": "g"}']).id
    assert texts.extra == {}


def test_a_column_of_tools_that_holds_something_else_stays():
    for value in (["a hammer"], 3, "a hammer"):
        conversation = convert("messages", **answered(), tools=value)
        assert (conversation.tools, conversation.extra) == (None, {"tools": value})


@pytest.mark.parametrize("column", ["messages", "dialogs", "conversations", "conversation"])
def test_columns_of_turns_are_detected(tmp_path, column):
    (conversation,) = good(read(tmp_path / "a", json_lines([{column: CHAT, "n": 1}])))
    assert (turn_pairs(conversation), conversation.extra) == (WHY, {"n": 1})


def test_a_row_without_an_answer_says_so():
    turns = [{"role": "user", "content": "Why?"}]
    with pytest.raises(BadRow, match="answers no user turn"):
        convert("messages", messages=turns)
    with pytest.raises(BadRow, match="'chosen' and 'rejected'"):
        convert("messages", messages=turns, chosen="a", rejected="b")
    assert bad_row_reason("prompt_response", prompt="Why?", response=" ") == "no_answer"


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"prompt": "Why?", "completion": "No idea.", "label": False}, "prompt_response"),
        ({"messages": CHAT, "kto_tag": False}, "messages"),
    ],
)
def test_an_answer_marked_as_bad_is_quarantined(tmp_path, row, format):
    column = list(row)[-1]
    rows = read(tmp_path / "a", json_lines([row, {**row, column: True}]))
    assert fates(rows) == {1: "rejected_answer", 2: "ok"}
    assert repr(column) in rows[0].detail


def test_alpaca_joins_instruction_and_input():
    conversation = convert("alpaca", instruction="Add.", input="1\n2", output="3", id=7)
    assert turn_pairs(conversation) == [("user", "Add.\n1\n2"), ("assistant", "3")]
    assert conversation.extra == {"id": 7}


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
        {"category": "d"},
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
    assert conversation.turns[-1].fields == {"weight": 1}
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
