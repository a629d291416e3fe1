"""Which files a pool has, how each one is detected, and the errors for everything else."""

from __future__ import annotations

import bz2
import io
import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from deita_tasks.errors import EmptyFile, InputError, StorageError, UsageError
from deita_tasks.loading import FORMATS, open_pool, pool_files, read_conversations
from deita_tasks.loading.containers import detect_container
from tests.support.loading_pools import (
    COMPRESSORS,
    PARQUET,
    PLAIN,
    SAMPLES,
    fates,
    good,
    json_lines,
    read,
)

ROW = b'{"prompt":"p","response":"r"}\n'


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


@pytest.fixture
def mixed(tmp_path):
    """A folder with a file of each format, each in another container, and files of other kinds."""
    (tmp_path / "deeper").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "a.jsonl.xz").write_bytes(COMPRESSORS["xz"](json_lines(SAMPLES["sharegpt"][0])))
    (tmp_path / "b.json").write_bytes(PLAIN["json_array"](SAMPLES["messages"][0]))
    (tmp_path / "deeper" / "c.CSV").write_bytes(PLAIN["csv"](SAMPLES["alpaca"][0]))
    (tmp_path / "deeper" / "d.parquet").write_bytes(
        PARQUET["parquet"](SAMPLES["prompt_response"][0])
    )
    for name in ("README.md", "LICENSE", ".gitattributes", ".cache/e.jsonl", "_SUCCESS"):
        (tmp_path / name).write_bytes(b"no pool")
    return tmp_path


def test_a_folder_of_mixed_formats(mixed):
    conversations = good(list(read_conversations(str(mixed))))
    assert [conversation.turns for conversation in conversations] == [
        turns for _, expected in SAMPLES.values() for turns in expected
    ]
    assert [str(open_pool(file)).removeprefix(str(mixed)) for file in pool_files(str(mixed))] == [
        "/a.jsonl.xz: sharegpt (conversations) in json_lines, xz",
        "/b.json: messages (messages) in json_array",
        "/deeper/c.CSV: alpaca (instruction, output) in csv",
        "/deeper/d.parquet: prompt_response (prompt, response) in parquet",
    ]
    assert [open_pool(file).format.name for file in pool_files(str(mixed))] == list(SAMPLES)


def test_globs_lists_and_a_file_named_twice(mixed):
    names = [
        file.removeprefix(str(mixed))
        for file in pool_files([str(mixed / "b.json"), str(mixed / "*.js*"), str(mixed / "deeper")])
    ]
    assert names == ["/b.json", "/a.jsonl.xz", "/deeper/c.CSV", "/deeper/d.parquet"]
    assert len(good(list(read_conversations(str(mixed / "**" / "*.parquet"))))) == 2


def test_memory_uris(memory):
    memory.pipe("/pools/one.jsonl", json_lines(SAMPLES["messages"][0]))
    memory.pipe("/pools/two.json", PLAIN["json_array"](SAMPLES["alpaca"][0]))
    for uri, count in (
        ("memory://pools/one.jsonl", 3),
        ("memory://pools", 6),
        ("memory://pools/*.json", 3),
    ):
        assert len(good(list(read_conversations(uri)))) == count
    assert [
        conversation.source.uri for conversation in read_conversations("memory://pools/two.json")
    ] == ["memory:///pools/two.json"] * 3 or [
        conversation.source.uri for conversation in read_conversations("memory://pools/two.json")
    ] == ["memory://pools/two.json"] * 3


def test_a_pool_file_can_be_read_again(mixed):
    pool = open_pool(str(mixed / "a.jsonl.xz"))
    assert (
        [conversation.id for conversation in pool]
        == [conversation.id for conversation in pool]
        != []
    )


def test_nothing_there(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("x")
    for uri, message in (
        ("absent.jsonl", "no such file"),
        ("empty", "no files"),
        ("*.jsonl", "no file matches"),
        (
            "docs",
            r"docs: no file here is data \(for example .*README.md: .*\); expected files",
        ),
    ):
        with pytest.raises(InputError, match=message):
            read_conversations(str(tmp_path / uri))
    with pytest.raises(InputError, match="no input was given"):
        read_conversations([])
    with pytest.raises(UsageError, match="nowhere"):
        read_conversations("nowhere://pool")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" \n\t\n",
        b"[]",
        b"[ , ]",
        b"\xef\xbb\xbf\n",
        b"prompt,response\n",
        b"\n\nprompt,response\r\n\r\n",
        None,
    ],
)  # None: Parquet
@pytest.mark.parametrize("compression", COMPRESSORS)
@pytest.mark.parametrize("format", ["auto", "prompt_response"])
def test_no_rows(tmp_path, content, compression, format):
    if content is None:
        if compression != "none":
            pytest.skip("Parquet is not compressed from outside")
        out = io.BytesIO()
        pq.write_table(
            pa.table({"prompt": pa.array([], pa.string()), "response": pa.array([], pa.string())}),
            out,
        )
        content = out.getvalue()
    with pytest.raises(InputError, match=r"pool: (no rows|an empty file)"):
        read(tmp_path / "pool", COMPRESSORS[compression](content), format)


def test_an_empty_file_among_others_is_passed_over(tmp_path, caplog):
    """It may still be being written. The other files are read, and a warning names it."""
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "b.jsonl").write_text('{"prompt": "p", "response": "r"}\n')
    (tmp_path / "c.csv").write_text("prompt,response\n")
    assert len(list(read_conversations(str(tmp_path)))) == 1
    assert "a.jsonl: an empty file" in caplog.text
    assert "c.csv: no rows" in caplog.text
    (tmp_path / "b.jsonl").write_bytes(b"[]")
    with pytest.raises(EmptyFile, match="no rows"):
        read_conversations(str(tmp_path))


def test_an_unknown_format_says_what_was_seen_and_what_was_expected(tmp_path):
    with pytest.raises(InputError) as caught:
        read(tmp_path / "pool", b'{"text":"a","label":1}\n{"text":"b","meta":null}\n')
    message = str(caught.value)
    assert "its rows have 'text', 'label', 'meta'" in message
    for part in (
        "sharegpt: conversations",
        "messages: messages",
        "alpaca: instruction, output",
        "prompt_response: prompt, response",
        "these are plain texts",
    ):
        assert part in message


def test_a_file_without_any_readable_row_says_what_is_wrong_with_the_first(tmp_path):
    with pytest.raises(
        InputError,
        match=r"no row can be read \(the first problem: row 2: not JSON: Expecting value at "
        r"character 1\)",
    ):
        read(tmp_path / "pool", b"\nnonsense\nmore\n")


@pytest.mark.parametrize(
    ("content", "description"),
    [
        (b"PK\x03\x04rest", "zip"),
        (b"x" * 257 + b"ustar", "a tar archive"),
        (bz2.compress(b"x" * 257 + b"ustar"), "a tar archive"),
        (b'{"prompt": {"0": "a"}}', "column of values under each name"),
        ("[]".encode("utf-16"), "UTF-16"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<p>404", "a web page"),
        (b'{"a": 1} {"a": 2}', "several JSON objects one after another"),
        (b'{\n"a": 1\n}\n{\n"a": 2\n}\n', "several JSON objects one after another"),
        (b"ARROW1\0\0", "not readable as Arrow IPC"),
        (COMPRESSORS["gzip"](PARQUET["parquet"](SAMPLES["messages"][0])), "Parquet inside gzip"),
    ],
)
def test_what_is_no_pool_is_named(tmp_path, content, description):
    with pytest.raises(InputError, match=f"pool: .*{description}"):
        read(tmp_path / "pool", content)


def test_a_wrong_format_fails_before_anything_is_read():
    with pytest.raises(
        UsageError, match=r"unknown format 'sharegtp': expected one of .*did you mean 'sharegpt'"
    ):
        read_conversations("/nowhere", "sharegtp")


def test_most_of_the_first_rows_decide_and_the_others_are_missing_a_field(tmp_path):
    alpaca, messages = (
        b'{"instruction":"a","output":"b"}\n',
        b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n',
    )
    rows = read(tmp_path / "pool", messages + alpaca * 2)
    assert fates(rows) == {1: "missing_field", 2: "ok", 3: "ok"}
    assert fates(read(tmp_path / "pool", alpaca + messages)) == {
        1: "missing_field",
        2: "ok",
    }  # a tie goes by the order of FORMATS
    assert fates(read(tmp_path / "pool", messages * 100 + alpaca * 300)) == {
        n: "ok" if n <= 100 else "missing_field" for n in range(1, 401)
    }


def test_bad_rows_do_not_count_in_detection(tmp_path):
    actual = fates(read(tmp_path / "pool", b"nonsense\n" * 500 + ROW))
    assert actual == {n: "malformed_row" if n <= 500 else "ok" for n in range(1, 502)}


def test_a_row_that_fits_two_formats_is_of_the_first_in_the_table(tmp_path):
    turns = [{"role": "user", "content": "m"}, {"role": "assistant", "content": "n"}]
    row = {"prompt": "p", "response": "r", "messages": turns}
    (conversation,) = good(read(tmp_path / "pool", json_lines([row])))
    assert (conversation.turns[0].content, conversation.extra) == (
        "m",
        {"prompt": "p", "response": "r"},
    )
    assert list(FORMATS) == ["sharegpt", "messages", "alpaca", "prompt_response"]


def test_a_forced_format_is_taken_whatever_the_rows(tmp_path):
    row = {"prompt": "p", "response": "r", "messages": [{"role": "user", "content": "m"}]}
    (conversation,) = good(read(tmp_path / "pool", json_lines([row]), "prompt_response"))
    assert conversation.turns[0].content == "p"
    assert fates(read(tmp_path / "pool", ROW * 3, "alpaca")) == dict.fromkeys(
        [1, 2, 3], "missing_field"
    )
    assert fates(read(tmp_path / "pool", b"nonsense\n", "alpaca")) == {1: "malformed_row"}
    (dolly,) = good(read(tmp_path / "pool", b'{"instruction":"a","response":"b"}', "alpaca"))
    assert dolly.turns[1].content == "b"


def test_only_a_name_makes_csv_of_unknown_columns(tmp_path):
    with pytest.raises(InputError, match="its rows have 'a', 'b'"):
        read(tmp_path / "pool.csv", b"a,b\n1,2\n")
    with pytest.raises(InputError, match="no row can be read"):
        read(tmp_path / "pool.txt", b"a,b\n1,2\n")
    with pytest.raises(InputError, match=r"duplicate names in the header 'a', 'a'"):
        read(tmp_path / "pool.csv", b"a,a\n1,2\n")
    assert detect_container(ROW, "pool.csv", []) == "json_lines"


def test_arrays_that_look_like_lines(tmp_path):
    for content in (
        b"[" + ROW + b",\n" + ROW + b"]",
        b"[\n" + ROW + b"]",
        b"[null,\n" + ROW + b"]",
        b"[" + ROW.strip() + b"]\n\n",
    ):
        assert detect_container(content, "pool", []) == "json_array"


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(self, path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "pool").write_bytes(ROW)
    monkeypatch.setattr(LocalFileSystem, "open", refuse)
    with pytest.raises(InputError, match=r"(?i)pool.*permission"):
        read_conversations(str(tmp_path / "pool"))


@pytest.mark.parametrize("container", ["json_lines", "parquet"])
def test_a_store_that_fails_while_reading_is_no_fault_of_the_pool(tmp_path, monkeypatch, container):
    class Failing(io.FileIO):
        def read(self, size=-1):
            if self.tell() < len(content) and self.tell() > 1 << 20:
                raise ConnectionResetError("reset by peer")
            return super().read(size)

    rows = [{"prompt": str(i) * 1_000, "response": "r" * 1_000} for i in range(2_000)]
    content = json_lines(rows)
    if container == "parquet":
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), out, compression="none", use_dictionary=False)
        content = out.getvalue()
    path = tmp_path / "pool"
    path.write_bytes(content)
    pool = open_pool(str(path))
    monkeypatch.setattr(LocalFileSystem, "open", lambda self, path, *args, **kwargs: Failing(path))
    rows_read = []
    with pytest.raises(StorageError, match="reset by peer") as caught:
        for row in pool:
            rows_read.append(row)
    assert not isinstance(caught.value, InputError)
    assert len(good(rows_read)) < 2_000


def test_rows_are_given_as_they_are_read(tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_bytes(json_lines([{"prompt": str(i), "response": "r"} for i in range(50_000)]))
    rows = read_conversations(str(path))
    assert [next(rows).turns[0].content for _ in range(3)] == ["0", "1", "2"]
    assert json.loads(path.read_bytes().splitlines()[-1])["prompt"] == "49999"
