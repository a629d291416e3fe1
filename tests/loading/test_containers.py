"""Every format gives the same conversations in every container and compression."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from deita_tasks.errors import InputError
from deita_tasks.loading import json_array, open_pool, read_conversations
from deita_tasks.loading import json_lines as json_lines_module
from deita_tasks.loading.base import BrokenFile
from tests.support.loading_pools import (
    COMPRESSORS,
    HELLO,
    PARQUET,
    PLAIN,
    SAMPLES,
    fates,
    good,
    json_lines,
    read,
)

ROW = b'{"prompt":"p","response":"r"}'


@pytest.mark.parametrize("format", SAMPLES)
@pytest.mark.parametrize("compression", COMPRESSORS)
@pytest.mark.parametrize("container", PLAIN)
def test_every_format_in_every_container(tmp_path, format, container, compression):
    rows, expected = SAMPLES[format]
    path = tmp_path / "pool.data"  # the name says nothing
    conversations = good(read(path, COMPRESSORS[compression](PLAIN[container](rows))))
    assert [conversation.turns for conversation in conversations] == expected
    assert [conversation.extra["topic"] for conversation in conversations] == [
        row["topic"] for row in rows
    ]
    pool = open_pool(str(path))
    assert (pool.format.name, pool.compression) == (format, compression)
    assert container.startswith(pool.container)


@pytest.mark.parametrize("format", SAMPLES)
@pytest.mark.parametrize("container", PARQUET)
def test_every_format_in_parquet(tmp_path, format, container):
    rows, expected = SAMPLES[format]
    conversations = good(read(tmp_path / "pool", PARQUET[container](rows)))
    assert [conversation.turns for conversation in conversations] == expected
    assert [conversation.source.row for conversation in conversations] == list(
        range(1, len(rows) + 1)
    )
    assert [conversation.extra["topic"] for conversation in conversations] == [
        row["topic"] for row in rows
    ]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz", "a"])
@pytest.mark.parametrize("container", ["json_lines", "json_array"])
def test_the_content_says_what_a_file_is_and_not_its_name(tmp_path, name, container):
    rows, expected = SAMPLES["sharegpt"]
    assert [
        conversation.turns for conversation in good(read(tmp_path / name, PLAIN[container](rows)))
    ] == expected


@pytest.mark.parametrize("container", PLAIN)
def test_a_byte_order_mark_is_not_text(tmp_path, container):
    rows, expected = SAMPLES["alpaca"]
    assert [
        conversation.turns
        for conversation in good(read(tmp_path / "a", b"\xef\xbb\xbf" + PLAIN[container](rows)))
    ] == expected


def test_rows_are_numbered_by_line_and_blank_lines_are_no_rows(tmp_path):
    assert fates(read(tmp_path / "a", b"\n" + ROW + b"\r\n \n\r\n" + ROW)) == {2: "ok", 5: "ok"}


def test_an_array_is_numbered_by_record_however_its_lines_run(tmp_path):
    content = (
        b" [ \n"
        + ROW
        + b","
        + ROW
        + b'\n\n,\n{\n"prompt": "a ] , } [ \\" \\\\", "response": "b"}\n,]\n\n'
    )
    rows = read(tmp_path / "a", content)
    assert fates(rows) == {1: "ok", 2: "ok", 3: "ok"}
    assert rows[2].turns[0].content == 'a ] , } [ " \\'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_a_block_may_end_anywhere(size):
    """Between the two bytes of an escape, within a character, within a number."""
    text = [
        {"a": 'q"\\', "b": ["[", "]", {"c": "},"}]},
        {"a": "\\", "é": 1.5e3},
        {},
        {"a": '\\\\"'},
    ]
    for module, content in (
        (json_array, json.dumps(text, ensure_ascii=False).encode()),
        (
            json_lines_module,
            b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in text),
        ),
    ):
        blocks = [content[i : i + size] for i in range(0, len(content), size)]
        assert [row.columns for row in module.rows(blocks)] == text


def test_a_bad_element_of_an_array_costs_itself_alone(tmp_path):
    bad = [
        b"{'prompt': 1}",
        b"7",
        b"nonsense",
        b'{"prompt":"a" "response":"b"}',
        b'{"prompt":"p","response":"r"}}',
        ROW + b" " + ROW,
    ]
    content = b"[" + ROW + b"," + b",".join(bad) + b"," + ROW + b"]"
    assert fates(read(tmp_path / "a", content)) == {
        1: "ok",
        **dict.fromkeys(range(2, 8), "malformed_row"),
        8: "ok",
    }


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b",",
        b',{"prompt":"p',
        b',{"prompt":["p","response":"r"},' + ROW + b"]",
        b'],"more"',
        b"][",
    ],
)
def test_a_broken_array_gives_the_rows_before_and_then_says_so(tmp_path, tail):
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + ROW + b",\n" + ROW + tail)
    rows = read_conversations(str(path))
    assert [next(rows).source.row, next(rows).source.row] == [1, 2]
    with pytest.raises(BrokenFile, match=r"a\.json: the (JSON )?array .* record 2"):
        next(rows)


@pytest.mark.parametrize(
    "first", [b"[1, 2]", b"[oops", b"nonsense", b"null", b'"prompt"', b"{", b"\xff\xfa"]
)
def test_json_lines_may_begin_with_a_bad_line(tmp_path, first):
    assert list(
        fates(read(tmp_path / "a", first + b"\n" + ROW + b"\n" + ROW + b"\n")).values()
    ) == ["malformed_row", "ok", "ok"] or (first == b"\xff\xfa")


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_a_truncated_stream_gives_the_rows_before_and_then_says_so(tmp_path, compression):
    letters = random.Random(0)
    rows = [
        {"prompt": "".join(letters.choices("abcdefghijklmnop", k=2_000)), "response": str(i)}
        for i in range(1_500)  # of more than one block of bzip2
    ]
    whole = COMPRESSORS[compression](json_lines(rows))
    path = tmp_path / "a"
    path.write_bytes(whole[: len(whole) // 2])
    conversations = []
    with pytest.raises(
        BrokenFile, match=f"a: the {compression} stream ends early, after {len(whole) // 2:,} bytes"
    ):
        for row in read_conversations(str(path)):
            conversations.append(row)
    assert len(good(conversations)) > 20
    assert [conversation.turns[1].content for conversation in conversations] == [
        str(i) for i in range(len(conversations))
    ]


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_damage_in_a_stream_is_an_error_and_no_row(tmp_path, compression):
    content = bytearray(COMPRESSORS[compression](json_lines(SAMPLES["messages"][0] * 50)))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(BrokenFile, match=f"the {compression} stream"):
        read(tmp_path / "a", bytes(content))


def test_streams_one_after_another_are_one_file(tmp_path):
    line = ROW + b"\n"
    padded = lzma.compress(line) + b"\0" * 8 + lzma.compress(line)
    skippable = b"P*M\x18\x03\0\0\0abc"
    framed = zstandard.ZstdCompressor().compress(line)
    for content in (
        gzip.compress(line) * 3,
        padded + lzma.compress(line),
        skippable + framed + framed + skippable + framed,
    ):
        assert fates(read(tmp_path / "a", content)) == {1: "ok", 2: "ok", 3: "ok"}


def test_zstd_without_a_content_size_and_gzip_with_a_name(tmp_path):
    rows = json_lines(SAMPLES["messages"][0])
    stream = io.BytesIO()
    with gzip.GzipFile("name.jsonl", "wb", fileobj=stream) as file:
        file.write(rows)
    assert len(good(read(tmp_path / "a", stream.getvalue()))) == 3
    packer = zstandard.ZstdCompressor().compressobj()
    assert len(good(read(tmp_path / "a", packer.compress(rows) + packer.flush()))) == 3


def test_parquet_in_row_groups_keeps_the_order(tmp_path):
    table = pa.table({"prompt": [str(i) for i in range(2_500)], "response": ["r"] * 2_500})
    pq.write_table(table, tmp_path / "a", row_group_size=700)
    conversations = good(list(read_conversations(str(tmp_path / "a"))))
    assert [
        (conversation.source.row, conversation.turns[0].content) for conversation in conversations
    ] == [(i + 1, str(i)) for i in range(2_500)]


def test_damaged_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(PARQUET["parquet"](SAMPLES["messages"][0])[:-20])
    with pytest.raises(InputError, match=r"a\.parquet: not readable as Parquet"):
        read_conversations(str(path))
    table = pa.table({"prompt": ["p" * 100, "q"], "response": ["r", "s"]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    content = path.read_bytes()
    assert content.count(b"\x64\0\0\0" + b"p" * 100) == 1
    path.write_bytes(content.replace(b"\x64\0\0\0" + b"p" * 100, b"\x64\0\0\0" + b"p" * 99 + b"o"))
    with pytest.raises(BrokenFile, match=r"a\.parquet: the Parquet file is damaged after row 0"):
        read_conversations(str(path))


def test_a_cell_of_csv_may_go_over_lines_and_keeps_every_character(tmp_path):
    content = b'prompt,response,n\r\n"a\r\n\n ""b"", c\t","d",1\r\n\r\nx,y,2'
    rows = good(read(tmp_path / "a", content))
    assert [
        (conversation.source.row, conversation.turns[0].content, conversation.extra)
        for conversation in rows
    ] == [
        (2, 'a\r\n\n "b", c\t', {"n": "1"}),
        (6, "x", {"n": "2"}),
    ]


def test_a_record_of_csv_whose_quotes_fit_costs_itself_alone(tmp_path):
    lines = [b"prompt,response", b"a,b", b"one", b"a,b,c", b"a\0,b", b"a\xff,b", b"prompt,response"]
    assert fates(read(tmp_path / "a.csv", b"\n".join([*lines, b"a,b"]))) == {
        2: "ok",
        3: "malformed_row",
        4: "malformed_row",
        5: "nul_byte",
        6: "invalid_utf8",
        7: "malformed_row",
        8: "ok",
    }


@pytest.mark.parametrize("delimiter", ["\t", ";"])
def test_csv_with_another_delimiter(tmp_path, delimiter):
    content = (
        delimiter.join(["prompt", "response", "n"]) + "\n" + delimiter.join(["a, b", "c", "1"])
    )
    (row,) = good(read(tmp_path / "a.tsv", content.encode()))
    assert ([turn.content for turn in row.turns], row.extra) == (["a, b", "c"], {"n": "1"})


def test_a_cell_of_csv_may_be_longer_than_the_csv_module_allows_by_itself(tmp_path):
    (row,) = good(read(tmp_path / "a.csv", b"prompt,response\n" + b"x" * 1_000_000 + b",y\n"))
    assert len(row.turns[0].content) == 1_000_000


def test_whitespace_is_kept_exactly(tmp_path):
    (row,) = good(
        read(
            tmp_path / "a", json_lines([{"prompt": HELLO[0].content, "response": HELLO[1].content}])
        )
    )
    assert row.turns == HELLO
