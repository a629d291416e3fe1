"""What becomes of odd rows; the expected outcome stands beside each row."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deita_tasks.conversations import Conversation, Quarantined
from deita_tasks.loading import base, read_conversations
from deita_tasks.loading.base import MAX_RAW_CHARACTERS, MAX_ROW_BYTES
from tests.support.loading_pools import COMPRESSORS, fates, read

PLAIN_ROW = (
    b'{"messages":[{"role":"user","content":"Why?"},{"role":"assistant","content":"Because."}]}'
)


def turn(content: bytes, role: bytes = b'"user"') -> bytes:
    return b'{"messages":[{"role":' + role + b',"content":' + content + b"}]}"


def answered(content: bytes, role: bytes = b'"user"') -> bytes:
    return turn(content, role)[:-2] + b',{"role":"assistant","content":"Because."}]}'


def column(value: bytes) -> bytes:
    return PLAIN_ROW[:-1] + b',"n":' + value + b"}"


# One line of the file each: what it is, its bytes, its fate.
ODD: list[tuple[str, bytes, str | None]] = [
    ("plain", PLAIN_ROW, "ok"),
    ("blank", b"  \t", None),
    ("no JSON", b"Why? Because.", "malformed_row"),
    ("cut off", PLAIN_ROW[:-20], "malformed_row"),
    ("two objects", PLAIN_ROW + PLAIN_ROW, "malformed_row"),
    ("trailing comma", PLAIN_ROW + b",", "malformed_row"),
    ("a list", b"[" + PLAIN_ROW + b"]", "malformed_row"),
    ("a string", b'"Why?"', "malformed_row"),
    ("null", b"null", "malformed_row"),
    ("empty object", b"{}", "missing_field"),
    ("another format's row", b'{"prompt":"Why?","response":"Because."}', "missing_field"),
    ("null column", b'{"messages":null}', "missing_field"),
    ("turn without content", b'{"messages":[{"role":"user"}]}', "missing_field"),
    ("turn without role", b'{"messages":[{"content":"Why?"}]}', "missing_field"),
    ("column of another type", b'{"messages":7}', "malformed_row"),
    ("turn of another type", b'{"messages":["Why?"]}', "malformed_row"),
    ("unknown role", turn(b'"Why?"', b'"narrator"'), "unknown_role"),
    ("role that is no text", turn(b'"Why?"', b"1"), "not_text"),
    ("no turns", b'{"messages":[]}', "empty_conversation"),
    ("blank turns", turn(b'" \\n\\u00a0"'), "empty_conversation"),
    ("assistant alone", turn(b'"Because."', b'"assistant"'), "no_user_turn"),
    ("number", turn(b"42"), "not_text"),
    ("null content", turn(b"null"), "not_text"),
    ("list of numbers", turn(b"[1]"), "not_text"),
    ("empty list", turn(b"[]"), "not_text"),
    ("picture", answered(b'[{"type":"image_url","image_url":{"url":"x"}}]'), "ok"),
    ("a part of an unknown type", answered(b'[{"type":"poem","poem":"x"}]'), "not_text"),
    ("nobody answers", turn(b'"Why?"'), "no_answer"),
    ("text parts", answered(b'[{"type":"text","text":"Why"},{"type":"text","text":"?"}]'), "ok"),
    ("invalid UTF-8", turn(b'"Wh\xff?"'), "invalid_utf8"),
    ("UTF-8 of half a pair", turn(b'"\xed\xa0\x80"'), "invalid_utf8"),
    ("overlong UTF-8", turn(b'"\xc0\xaf"'), "invalid_utf8"),
    ("NUL byte", turn(b'"Why\0?"'), "nul_byte"),
    ("escaped NUL", turn(b'"Why\\u0000?"'), "nul_byte"),
    ("NUL in another column", column(b'"\\u0000"'), "nul_byte"),
    ("a backslash and u0000", answered(b'"\\\\u0000"'), "ok"),
    ("lone high surrogate", turn(b'"\\ud83d"'), "lone_surrogate"),
    ("lone low surrogate, upper case", turn(b'"\\uDE00?"'), "lone_surrogate"),
    ("lone surrogate in a name", PLAIN_ROW[:-1] + b',"\\ud83d":1}', "lone_surrogate"),
    ("a pair", answered(b'"\\ud83d\\ude00"'), "ok"),
    ("noncharacter and private use", answered(b'"\\uffff\\ue000\\ufeff"'), "ok"),
    ("a raw line break in a text", turn(b'"a\rb"'), "malformed_row"),
    ("NaN", column(b"NaN"), "ok"),
    ("infinity", column(b"-Infinity"), "ok"),
    ("a double out of range", column(b"1e400"), "malformed_row"),
    ("a long integer", column(b"12345678901234567890123"), "ok"),
    ("an integer of 5,000 digits", column(b"9" * 5_000), "malformed_row"),
    ("a name twice", column(b'1,"n":2'), "malformed_row"),
    ("a name twice inside", turn(b'"a","content":"b"'), "malformed_row"),
    ("100,000 levels", b"[" * 100_000, "malformed_row"),
    ("500 levels", column(b"[" * 500 + b"]" * 500), "malformed_row"),
    ("100 levels", column(b"[" * 98 + b"{}" + b"]" * 98), "ok"),
    ("200 brackets in a text", answered(b'"' + b"[" * 200 + b'"'), "ok"),
    ("longer than a row may be", turn(b'"' + b"x" * MAX_ROW_BYTES + b'"'), "too_long"),
    (
        "as long as a row may be",
        answered(b'"' + b"x" * (MAX_ROW_BYTES - len(answered(b'""')) - 1) + b'"'),
        "ok",
    ),
    (
        "assistant first",
        b'{"messages":[{"role":"assistant","content":"Hi."},{"role":"user","content":"Hi."}]}',
        "no_answer",
    ),
    (
        "two user turns",
        b'{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}',
        "no_answer",
    ),
    (
        "blank user turn",
        b'{"messages":[{"role":"user","content":""},{"role":"assistant","content":"b"}]}',
        "ok",
    ),
    ("role in capitals", answered(b'"Why?"', b'" User"'), "ok"),
    ("the last line", PLAIN_ROW, "ok"),
]


@pytest.fixture(scope="module")
def odd_rows(tmp_path_factory) -> list[Conversation | Quarantined]:
    content = b"\n".join(line for _, line, _ in ODD)
    return read(tmp_path_factory.mktemp("odd") / "odd.jsonl", content)


def test_each_odd_row_has_its_fate_and_none_is_lost(odd_rows):
    actual = fates(odd_rows)
    expected = {number: fate for number, (_, _, fate) in enumerate(ODD, 1) if fate}
    assert {ODD[n - 1][0]: fate for n, fate in actual.items()} == {
        ODD[n - 1][0]: fate for n, fate in expected.items()
    }
    assert list(actual) == list(expected)


def test_a_bad_row_says_where_it_stood_why_and_what_it_was(odd_rows):
    for row in odd_rows:
        if isinstance(row, Quarantined):
            assert row.source.uri.endswith("odd.jsonl")
            assert row.detail and "\n" not in row.detail
            (row.raw + row.detail).encode()  # storable
            assert "\0" not in row.raw
            assert len(row.raw) <= MAX_RAW_CHARACTERS
    by_label = {ODD[row.source.row - 1][0]: row for row in odd_rows if isinstance(row, Quarantined)}
    assert by_label["no JSON"].raw == "Why? Because."
    assert by_label["invalid UTF-8"].raw == '{"messages":[{"role":"user","content":"Wh\\xff?"}]}'
    assert by_label["NUL byte"].raw == '{"messages":[{"role":"user","content":"Why\\x00?"}]}'
    assert (
        by_label["lone high surrogate"].raw == '{"messages":[{"role":"user","content":"\\ud83d"}]}'
    )
    assert by_label["invalid UTF-8"].detail == "byte 42 of the row, 0xff, is not UTF-8"
    assert by_label["unknown role"].detail.startswith(
        "turn 1 of 'messages' has the role 'narrator'"
    )
    assert (
        by_label["another format's row"].detail
        == "the column 'messages' is missing; the row has 'prompt', 'response'"
    )
    assert by_label["longer than a row may be"].raw.startswith(
        '{"messages":[{"role":"user","content":"xxx'
    )
    assert by_label["longer than a row may be"].detail == (
        f"the row is {MAX_ROW_BYTES + len(turn(b'')) + 3:,} bytes long; at most 16,777,216 are "
        "read (only the first 16,384 characters of the row are kept)"
    )


def test_good_rows_keep_every_character(odd_rows):
    texts = {
        ODD[row.source.row - 1][0]: row.turns[0].content
        for row in odd_rows
        if isinstance(row, Conversation)
    }
    assert texts["a pair"] == "😀"
    assert texts["a backslash and u0000"] == "\\u0000"
    assert texts["text parts"] == "Why?"
    assert texts["noncharacter and private use"] == "\uffff\ue000\ufeff"


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_compression_changes_no_fate(tmp_path, odd_rows, compression):
    content = COMPRESSORS[compression](b"\n".join(line for _, line, _ in ODD))
    assert fates(read(tmp_path / "odd", content)) == fates(odd_rows)


def test_an_array_of_the_same_rows_has_the_same_fates(tmp_path):
    rows = [
        (line, fate)
        for label, line, fate in ODD
        if fate and label not in ("cut off", "100,000 levels", "trailing comma")
    ]
    actual = fates(
        read(tmp_path / "odd.json", b"[\n" + b",\n".join(line for line, _ in rows) + b"\n]")
    )
    assert list(actual.values()) == [fate for _, fate in rows]


def test_a_row_too_long_is_one_row_whatever_the_blocks(tmp_path, monkeypatch):
    for module in ("json_lines", "json_array", "csv_text", "csv_records"):
        monkeypatch.setattr(f"deita_tasks.loading.{module}.MAX_ROW_BYTES", 100)
    long = {"prompt": "x" * 90, "response": "y"}
    short = {"prompt": "x", "response": "y"}
    lines = [json.dumps(row).encode() for row in (short, long, short, long)]
    assert list(fates(read(tmp_path / "a", b"\n".join(lines))).values()) == [
        "ok",
        "too_long",
        "ok",
        "too_long",
    ]
    assert list(fates(read(tmp_path / "b", b"[" + b", ".join(lines) + b"]")).values()) == [
        "ok",
        "too_long",
        "ok",
        "too_long",
    ]
    cells = b"prompt,response\nx,y\n" + b"x" * 100 + b',y\nx,"y\n' + b"y\n" * 60 + b"x,y\n"
    assert fates(read(tmp_path / "c", cells)) == {2: "ok", 3: "too_long", 4: "malformed_row"}


def test_parquet_rows_are_bad_for_the_same_reasons(tmp_path, monkeypatch):
    monkeypatch.setattr("deita_tasks.loading.arrow_rows.MAX_ROW_BYTES", 200)
    texts = [b"Why?", b"W\xffhy?", b"Wh\0y?", b"\\u0000", b"  ", None, b"x" * 300, b"\xed\xa0\x80"]
    prompts = pa.Array.from_buffers(pa.string(), len(texts), pa.array(texts, pa.binary()).buffers())
    pq.write_table(
        pa.table({"prompt": prompts, "response": ["Because."] * 4 + [" "] + ["Because."] * 3}),
        tmp_path / "a",
    )
    rows = list(read_conversations(str(tmp_path / "a")))
    assert fates(rows) == {
        1: "ok",
        2: "invalid_utf8",
        3: "nul_byte",
        4: "ok",
        5: "empty_conversation",
        6: "missing_field",
        7: "too_long",
        8: "invalid_utf8",
    }
    assert [row.raw for row in rows if isinstance(row, Quarantined)][:2] == [
        '{"prompt": null, "response": "Because."}',
        '{"prompt": "Wh\\u0000y?", "response": "Because."}',
    ]


def test_the_limits_are_what_the_documentation_says():
    assert (base.MAX_ROW_BYTES, base.MAX_RAW_CHARACTERS, base.MAX_DEPTH) == (
        16 * 1024 * 1024,
        16 * 1024,
        100,
    )
