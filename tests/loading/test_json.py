"""JSON files that are one object, and values that are nearly JSON."""

from __future__ import annotations

import json

import pytest

from deita_tasks.errors import InputError
from deita_tasks.loading import read_conversations
from deita_tasks.loading.base import BadRow, BrokenFile
from deita_tasks.loading.json_text import parse
from tests.support.loading_pools import fates, good, read

ROWS = [{"prompt": f"p{i}", "response": "r"} for i in range(3)]
HELLO = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}


@pytest.mark.parametrize("key", ["data", "rows", "train", "examples", "instances"])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_rows_of_an_object_are_in_its_list(tmp_path, key, indent):
    value = {"version": 1.5, "meta": {"data": [1]}, key: ROWS, "size": 3}
    rows = good(read(tmp_path / "a.json", json.dumps(value, indent=indent).encode()))
    assert [row.turns[0].content for row in rows] == ["p0", "p1", "p2"]


def test_a_list_of_rows_is_read_in_pieces(tmp_path):
    rows = [{"prompt": "x" * 10_000 + str(i), "response": "r"} for i in range(300)]
    content = json.dumps({"data": rows}).encode()
    assert [row.turns[0].content for row in good(read(tmp_path / "a", content))] == [
        row["prompt"] for row in rows
    ]


@pytest.mark.parametrize("end", [b"", b"]", b'], "test": [{"prompt": "p"}]}', b"]}]", b"]} {}"])
def test_an_object_that_holds_something_else_after_its_rows_says_so(tmp_path, end):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps({"data": ROWS}).encode().removesuffix(b"]}") + end)
    rows = read_conversations(str(path))
    assert [next(rows).turns[0].content for _ in ROWS] == ["p0", "p1", "p2"]
    with pytest.raises(BrokenFile, match=r"a\.json: .*(not complete|not closed|under 'test')"):
        next(rows)


def test_a_row_of_lines_may_have_a_column_named_data(tmp_path):
    content = json.dumps({**ROWS[0], "data": [{"a": 1}]}).encode()
    assert good(read(tmp_path / "a", content + b"\n" + content))[0].extra == {"data": [{"a": 1}]}


def test_an_object_over_several_lines_is_one_row(tmp_path):
    (row,) = good(read(tmp_path / "a.json", json.dumps(HELLO, indent=2).encode()))
    assert [turn.content for turn in row.turns] == ["Hi", "Yo"]


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": {"0": "a", "1": "b"}, "response": {"0": "c", "1": "d"}},
        {"prompt": ["a", "b"], "response": ["c", "d"]},
        {"messages": [HELLO["messages"]] * 2, "id": [1, 2]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_columns_in_place_of_rows(tmp_path, value, indent):
    with pytest.raises(InputError, match=r"column of values under each name.*orient=\"records\""):
        read(tmp_path / "a.json", json.dumps(value, indent=indent).encode())


def test_values_that_are_not_finite_are_null():
    assert parse("[NaN, Infinity, -Infinity, 1]") == [None, None, None, 1]


@pytest.mark.parametrize("text", ["[{'from': 'human'}]", "{'a': 1}", "[['a']]"])
def test_a_python_literal_is_named(text):
    with pytest.raises(BadRow, match=r"a Python literal .* not JSON; write it with json\.dumps"):
        parse(text)


def test_a_byte_order_mark_amid_a_file(tmp_path):
    line = json.dumps(ROWS[0]).encode() + b"\n"
    assert fates(read(tmp_path / "a", line + b"\xef\xbb\xbf" + line)) == {1: "ok", 2: "ok"}
