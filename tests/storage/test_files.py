"""Files are read and written whole or not at all: over a local folder, memory:// and S3."""

from __future__ import annotations

import gc
import hashlib
import os
import weakref

import pyarrow as pa
import pytest
import s3fs.core

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, MissingFile
from deita_tasks.storage import files
from deita_tasks.strict_json import DIGEST_FIELD, JsonRecord, digest_of
from tests.support.tables import table_of

pytest_plugins = ["tests.support.s3_fixtures"]

NAMES = [
    "plain.json",
    "with space.json",
    "ünï-中文.json",
    "a#b%20c.json",
    "semi;colon&and=.json",
    "deep/er/file.json",
]


def read(uri: str) -> bytes:
    with storage.open_read(uri) as handle:
        return handle.read()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read(place, name):
    uri = storage.join(place, *name.split("/"))
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"first")
    storage.write_bytes(uri, b"second")
    assert read(uri) == b"second"
    assert storage.exists(uri)
    assert storage.size_of(uri) == 6
    assert [file.name for file in storage.find(place)] == [name]
    assert storage.sha256_of(uri) == hashlib.sha256(b"second").hexdigest()
    storage.remove(uri)
    assert not storage.exists(uri)


def test_a_file_appears_whole_or_not_at_all(place):
    uri = storage.join(place, "file")
    with pytest.raises(RuntimeError, match="broke off"), storage.write_atomic(uri) as handle:
        handle.write(b"half")
        raise RuntimeError("broke off")
    assert not storage.exists(uri)
    assert storage.find(place) == []
    storage.write_bytes(uri, b"old")
    with pytest.raises(KeyboardInterrupt), storage.write_atomic(uri) as handle:
        handle.write(b"half")
        raise KeyboardInterrupt
    with storage.write_atomic(uri) as handle:
        handle.write(b"new")
        handle.flush()
        assert read(uri) == b"old"  # until the block has ended
    assert read(uri) == b"new"


def test_an_upload_of_many_parts_is_atomic_too(s3, monkeypatch):
    uri = f"s3://{s3.bucket()}/large"
    block = os.urandom(1 << 20)
    monkeypatch.setattr(files, "UPLOAD_PART", 5 << 20)  # the least that S3 allows
    fs = storage.filesystem(uri)[0]
    with pytest.raises(RuntimeError), storage.write_atomic(uri) as handle:
        for _ in range(6):
            handle.write(block)
        assert len(fs.list_multipart_uploads(uri.split("/")[2])) == 1
        raise RuntimeError
    assert not storage.exists(uri)
    assert fs.list_multipart_uploads(uri.split("/")[2]) == []  # nothing to pay for
    with storage.write_atomic(uri) as handle:
        for _ in range(11):
            handle.write(block)
        assert not storage.exists(uri)
    assert storage.size_of(uri) == 11 << 20
    assert storage.sha256_of(uri) == hashlib.sha256(block * 11).hexdigest()


@pytest.mark.parametrize(
    "call",
    [
        storage.open_read,
        storage.read_json,
        storage.read_table,
        storage.size_of,
        storage.sha256_of,
        storage.describe,
    ],
)
def test_missing_files(place, call):
    with pytest.raises(MissingFile, match=r"nothing: no such file"):
        call(storage.join(place, "nothing"))


# ---- JSON


def test_json(place):
    uri = f"{place}/value.json"
    storage.write_json(uri, {"b": "ü", "a": [1, None]})
    assert storage.read_json(uri) == {"a": [1, None], "b": "ü"}
    assert read(uri) == '{\n  "a": [\n    1,\n    null\n  ],\n  "b": "ü"\n}\n'.encode()
    storage.write_bytes(uri, b'{"a": ')
    with pytest.raises(DamagedArtifact, match="not JSON"):
        storage.read_json(uri)


class Person(JsonRecord):
    name: str
    age: int


def test_records(place):
    uri = f"{place}/person.json"
    ada = Person(name="Ada", age=36)
    storage.write_record(uri, ada)
    fields = {"name": "Ada", "age": 36}
    assert storage.read_json(uri) == fields | {DIGEST_FIELD: digest_of(fields)}
    assert storage.read_record(uri, Person) == ada
    with pytest.raises(MissingFile):
        storage.read_record(f"{place}/nothing", Person)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"name": "Ada"}, "'age'"),
        ({"name": "Ada", "age": 36, "shoe": 5}, "'shoe'"),
        ({"name": "Ada", "age": "old"}, "age: 'old' arrived"),
        ([], "[] arrived; expected options with values"),
        ({"name": "Ada", "age": 36, DIGEST_FIELD: "0" * 32}, "not what its digest stands for"),
    ],
)
def test_json_that_is_not_such_a_record(place, value, problem):
    uri = f"{place}/person.json"
    storage.write_json(uri, value)
    with pytest.raises(DamagedArtifact, match=r"person\.json: not a Person") as caught:
        storage.read_record(uri, Person)
    assert problem in str(caught.value)


# ---- Parquet


def test_arrow_reads_a_local_file_without_python(tmp_path, monkeypatch):
    """Arrow's threads may destroy the file after the read has returned. Where that is a Python
    object, and Python is ending, the process aborts with status 134.
    """
    uri = str(tmp_path / "t.parquet")
    storage.write_table(uri, table_of(10))
    monkeypatch.setattr(files, "_FileReader", None)
    assert storage.read_table(uri).num_rows == 10


def test_another_file_outlives_the_threads_that_read_it(monkeypatch):
    uri = "memory://outlives/t.parquet"
    storage.write_table(uri, table_of(10))
    closed = []

    class Reader(files._FileReader):
        def close(self) -> None:
            closed.append(weakref.ref(self))
            super().close()

    monkeypatch.setattr(files, "_FileReader", Reader)
    storage.read_table(uri)
    gc.collect()
    assert closed, "its connection is not kept"
    assert all(reader() is not None for reader in closed)


def test_tables(place):
    uri = f"{place}/t.parquet"
    table = table_of(5_000)
    storage.write_table(uri, table)
    assert storage.read_table(uri).equals(table)
    assert storage.read_table(uri, ["id"]).equals(table.select(["id"]))
    with pytest.raises(RuntimeError), storage.parquet_writer(uri, table.schema) as writer:
        writer.write_table(table.slice(0, 10))
        raise RuntimeError
    assert storage.read_table(uri).num_rows == 5_000  # the old one stands


def damaged(content: bytes, damage: str) -> bytes:
    middle = len(content) // 2
    return {
        "truncated": content[:middle],
        "empty": b"",
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "no footer": content[:-8] + b"\0" * 8,
        "text": b"not Parquet at all",
    }[damage]


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "no footer", "text"])
def test_damage_is_noticed(place, damage):
    uri = f"{place}/t.parquet"
    storage.write_table(uri, table_of(5_000))
    info = storage.describe(uri)
    storage.write_bytes(uri, damaged(read(uri), damage))
    with pytest.raises(DamagedArtifact, match="not readable as Parquet"):
        storage.read_table(uri)
    has_same_size = damage in ("flipped", "no footer")
    assert not storage.is_same(uri, info) or (has_same_size and not storage.is_local(uri))


def test_arrow_without_memory_is_no_damage(tmp_path):
    storage.write_table(str(tmp_path / "a.parquet"), pa.table({"a": [1]}))
    with pytest.raises(MemoryError), storage.parquet_file(str(tmp_path / "a.parquet")):
        raise pa.lib.ArrowMemoryError("no room")


def test_a_column_is_read_without_the_others(s3, monkeypatch):
    """By projection: an object store is asked for the footer and for the wanted bytes only."""
    uri = f"s3://{s3.bucket()}/t.parquet"
    storage.write_table(uri, table_of(200_000))
    fetched_bytes = []
    fetch_range = s3fs.core.S3File._fetch_range

    def watched(self, start, end):
        fetched_bytes.append(end - start)
        return fetch_range(self, start, end)

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", watched)
    assert storage.read_table(uri, ["id"]).num_rows == 200_000
    assert 0 < sum(fetched_bytes) < storage.size_of(uri) / 4
    with storage.parquet_file(uri) as parquet:
        assert parquet.num_row_groups == 1
