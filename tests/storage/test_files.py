"""Every case over a local folder, memory:// and S3."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, InputError, MissingFile, StorageError, UsageError
from deita_tasks.storage import files
from tests.support.s3 import S3, SECRET

pytest_plugins = ["tests.support.s3_fixtures"]

NAMES = [
    "plain.json",
    "with space.json",
    "ünï-中文.json",
    "a#b%20c.json",
    "semi;colon&and=.json",
    "deep/er/file.json",
]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read(place, name):
    uri = storage.join(place, *name.split("/"))
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"first")
    storage.write_bytes(uri, b"second")
    with storage.open_read(uri) as handle:
        assert handle.read() == b"second"
    assert storage.exists(uri)
    assert storage.size_of(uri) == 6
    assert [one.name for one in storage.find(place)] == [name]
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
        with storage.open_read(uri) as reader:
            assert reader.read() == b"old"  # until the block has ended
    with storage.open_read(uri) as reader:
        assert reader.read() == b"new"


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


def test_missing_files(place):
    for call in (
        storage.open_read,
        storage.read_json,
        storage.read_table,
        storage.size_of,
        storage.sha256_of,
    ):
        with pytest.raises(MissingFile, match=r"nothing: no such file"):
            call(storage.join(place, "nothing"))
    storage.remove(storage.join(place, "nothing"))
    assert storage.list_files(place) == []
    assert storage.find(place) == []
    assert storage.is_empty(place)
    assert not storage.is_same(storage.join(place, "nothing"), {"bytes": 1, "sha256": ""})


def test_listing(place):
    for name in ("b.parquet", "a.parquet", "c.json", ".hidden.parquet", "below/d.parquet"):
        storage.write_bytes(f"{place}/{name}", b"x")
    assert storage.list_files(place, ".parquet") == [f"{place}/a.parquet", f"{place}/b.parquet"]
    assert [one.name for one in storage.find(place)] == [
        ".hidden.parquet",
        "a.parquet",
        "b.parquet",
        "below/d.parquet",
        "c.json",
    ]
    assert all(one.bytes == 1 for one in storage.find(place))
    assert all(
        abs(one.modified - datetime.now(UTC)) < timedelta(minutes=1) for one in storage.find(place)
    )
    assert not storage.is_empty(place)
    with pytest.raises(UsageError, match="is a file; expected a folder"):
        storage.is_empty(f"{place}/c.json")


def test_what_another_process_writes_is_seen(s3):
    uri = f"s3://{s3.bucket()}/place"
    assert storage.list_files(uri) == []
    other = fsspec.filesystem("s3", skip_instance_cache=True)
    other.pipe(f"{uri}/new", b"x")
    assert storage.exists(f"{uri}/new")
    assert storage.list_files(uri) == [f"{uri}/new"]
    other.pipe(f"{uri}/newer", b"x")
    assert len(storage.list_files(uri)) == 2


def test_a_listing_of_many_files_is_paged(s3, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "5")  # S3 itself gives 1,000 a page
    uri = f"s3://{s3.bucket()}/place"
    for number in range(12):
        storage.write_bytes(f"{uri}/{number}", b"")
    assert len(storage.list_files(uri)) == len(storage.find(uri)) == 12


def test_expand(place):
    names = (
        "b.jsonl",
        "a 1.jsonl",
        "ü[1].jsonl",
        "sub/c.jsonl",
        ".git/config",
        "_SUCCESS",
        "sub/.d.jsonl",
    )
    for name in names:
        storage.write_bytes(f"{place}/{name}", b"{}")

    def below(uri: str) -> list[str]:
        return [one.split("place/", 1)[1] for one in storage.expand(uri)]

    assert below(place) == ["a 1.jsonl", "b.jsonl", "sub/c.jsonl", "ü[1].jsonl"]
    assert below(f"{place}/") == below(place)
    assert below(f"{place}/*.jsonl") == ["a 1.jsonl", "b.jsonl", "ü[1].jsonl"]
    assert below(f"{place}/**/*.jsonl") == ["a 1.jsonl", "b.jsonl", "sub/c.jsonl", "ü[1].jsonl"]
    assert below(f"{place}/ü[1].jsonl") == [
        "ü[1].jsonl"
    ]  # a file's own name, although it looks like a pattern
    for uri in storage.expand(place):
        assert storage.exists(uri)
    missing = {
        "nothing": "no such file or folder",
        "*.csv": "no file matches this pattern",
        ".git/*/x?": "no file matches",
    }
    for name, why in missing.items():
        with pytest.raises(InputError, match=why):
            storage.expand(f"{place}/{name}")


def test_what_lies_in_a_folder_has_a_path_from_there(place):
    assert (
        storage.path_in(f"{place}/deep/file", place)
        == storage.path_in(f"{place}/deep/file", f"{place}/")
        == "deep/file"
    )
    assert storage.path_in(f"{place}/", place) == ""
    assert (
        storage.path_in(f"{place}s/file", place) is None
    )  # a name that begins alike is another folder
    assert storage.path_in(place, f"{place}/deep") is None


def test_a_path_of_another_kind_of_store_is_no_path_in_a_folder():
    assert storage.path_in("memory://pools/file", "/pools") is None


def test_a_folder_of_hidden_files_holds_none(place):
    storage.write_bytes(f"{place}/.hidden", b"")
    with pytest.raises(InputError, match="holds no files"):
        storage.expand(place)


def test_a_folder_marker_is_no_file(s3):
    """Consoles of object stores make empty objects named like folders."""
    uri = f"s3://{s3.bucket()}/place"
    client = fsspec.filesystem("s3")
    client.call_s3("put_object", Bucket=uri.split("/")[2], Key="place/", Body=b"")
    assert storage.is_empty(uri)
    assert storage.find(uri) == []
    storage.write_bytes(f"{uri}/pool.jsonl", b"{}")
    assert storage.expand(uri) == [f"{uri}/pool.jsonl"]


@pytest.mark.parametrize(
    "part", ["../x", "a/../../x", "/etc/passwd", "..", "a\\..\\x", "a\0", "", ".", "./x"]
)
def test_no_name_leads_out(place, part):
    with pytest.raises(StorageError, match="expected a name inside"):
        storage.join(place, part)


def test_only_what_is_named_is_removed(place):
    for name in ("a[1]", "a1", "b*", "bc", "folder[x]/inside", "folderx/inside"):
        storage.write_bytes(f"{place}/{name}", b"x")
    for name in ("a[1]", "b*", "folder[x]"):
        storage.remove(f"{place}/{name}")
    assert [one.name for one in storage.find(place)] == ["a1", "bc", "folderx/inside"]


def test_names_that_only_look_like_it_are_fine():
    assert storage.join("s3://bucket", "a..b", "...", "c") == "s3://bucket/a..b/.../c"


def test_json(place):
    uri = f"{place}/value.json"
    storage.write_json(uri, {"b": "ü", "a": [1, None]})
    assert storage.read_json(uri) == {"a": [1, None], "b": "ü"}
    storage.write_bytes(uri, b'{"a": ')
    with pytest.raises(DamagedArtifact, match="not JSON"):
        storage.read_json(uri)


def table_of(rows: int) -> pa.Table:
    # incompressible enough for several pages, so that damage in the middle is damage to data
    texts = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(rows)]
    return pa.table({"id": [f"{number:08}" for number in range(rows)], "text": texts})


def test_tables(place):
    uri, table = f"{place}/t.parquet", table_of(5_000)
    storage.write_table(uri, table)
    assert storage.read_table(uri).equals(table)
    assert storage.read_table(uri, ["id"]).equals(table.select(["id"]))
    with pytest.raises(RuntimeError), storage.parquet_writer(uri, table.schema) as writer:
        writer.write_table(table.slice(0, 10))
        raise RuntimeError
    assert storage.read_table(uri).num_rows == 5_000  # the old one stands


def damaged(content: bytes, how: str) -> bytes:
    middle = len(content) // 2
    return {
        "truncated": content[:middle],
        "empty": b"",
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "no footer": content[:-8] + b"\0" * 8,
        "text": b"not Parquet at all",
    }[how]


@pytest.mark.parametrize("how", ["truncated", "empty", "flipped", "no footer", "text"])
def test_damage_is_noticed(place, how):
    uri = f"{place}/t.parquet"
    storage.write_table(uri, table_of(5_000))
    facts = storage.describe(uri)
    with storage.open_read(uri) as handle:
        content = handle.read()
    storage.write_bytes(uri, damaged(content, how))
    with pytest.raises(DamagedArtifact, match="not readable as Parquet"):
        storage.read_table(uri)
    assert not storage.is_same(uri, facts) or (
        how in ("flipped", "no footer") and not storage.is_local(uri)
    )


def test_a_column_is_read_without_the_others(s3, monkeypatch):
    """By projection: an object store is asked for the footer and for the wanted bytes only."""
    uri = f"s3://{s3.bucket()}/t.parquet"
    storage.write_table(uri, table_of(200_000))
    fetched = []
    import s3fs.core

    fetch = s3fs.core.S3File._fetch_range
    monkeypatch.setattr(
        s3fs.core.S3File,
        "_fetch_range",
        lambda self, start, end: fetched.append(end - start) or fetch(self, start, end),
    )
    assert storage.read_table(uri, ["id"]).num_rows == 200_000
    assert 0 < sum(fetched) < storage.size_of(uri) / 4
    with storage.parquet_file(uri) as parquet:
        assert parquet.num_row_groups == 1


def test_content_digest_follows_the_content(place):
    uri, other = f"{place}/a", f"{place}/b"
    storage.write_bytes(uri, b"one")
    storage.write_bytes(other, b"one")
    before = storage.content_digest(uri)
    assert storage.content_digest(uri) == before
    storage.write_bytes(uri, b"two")
    assert storage.content_digest(uri) != before
    if not place.startswith("memory"):  # which knows only when
        assert storage.content_digest(other) == before


# ---- what goes wrong, in one line


def test_a_scheme_that_nobody_serves():
    with pytest.raises(UsageError, match=r"expected a path, s3://, hf:// or memory://"):
        storage.filesystem("nosuchscheme://x")


def test_a_missing_bucket(s3):
    with pytest.raises(InputError, match="no such file or folder"):
        storage.expand("s3://no-such-bucket-here/pool.jsonl")
    with pytest.raises(MissingFile, match="no such bucket"):
        storage.write_bytes("s3://no-such-bucket-here/x", b"x")
    with pytest.raises(UsageError, match="no such bucket: 'no-such-bucket-here'"):
        storage.check_place("s3://no-such-bucket-here/x")
    with pytest.raises(UsageError, match="no such bucket"):
        storage.check_place("s3://")
    storage.check_place(f"s3://{s3.bucket()}/anything")


def test_no_credentials(s3, monkeypatch):
    bucket = s3.bucket()
    s3.use(monkeypatch, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    with pytest.raises(StorageError, match=r"no usable credentials .*AWS_PROFILE") as caught:
        storage.write_bytes(f"s3://{bucket}/x", b"x")
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there(monkeypatch):
    S3("http://127.0.0.1:9").use(monkeypatch, AWS_MAX_ATTEMPTS="1")
    for call in (
        storage.exists,
        storage.expand,
        storage.read_json,
        storage.find,
        storage.read_table,
        storage.check_place,
    ):
        with pytest.raises(StorageError, match="the store cannot be reached") as caught:
            call("s3://bucket/x")
        assert not isinstance(caught.value, DamagedArtifact | MissingFile)
    with pytest.raises(StorageError, match="the store cannot be reached"):
        storage.write_bytes("s3://bucket/x", b"x")


def test_a_full_disk(tmp_path, monkeypatch):
    uri = str(tmp_path / "t.parquet")
    storage.write_table(uri, table_of(10))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StorageError, match=r"t\.parquet: the disk is full; make room and run again"
    ):
        storage.write_table(uri, table_of(5_000))
    assert os.listdir(tmp_path) == ["t.parquet"]
    assert storage.read_table(uri).num_rows == 10


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_is_full_in_the_middle_of_a_table(tmp_path, monkeypatch):
    """The error goes through pyarrow and keeps its meaning."""
    real = open
    full = lambda path, mode="r", *more, **how: real(
        "/dev/full" if mode == "wb" else path, mode, *more, **how
    )
    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(StorageError, match="the disk is full"):
        storage.write_table(str(tmp_path / "t.parquet"), table_of(50_000))
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is not a folder"):
        storage.check_place(str(tmp_path / "file" / "store"))
    with pytest.raises(StorageError, match=r"file/store"):
        storage.write_bytes(str(tmp_path / "file" / "store"), b"")
    storage.check_place(str(tmp_path / "new" / "store"))
    monkeypatch.setattr(
        os, "access", lambda path, mode: False
    )  # root, as which tests may run, may write everywhere
    with pytest.raises(UsageError, match="no permission to write in"):
        storage.check_place(str(tmp_path / "new" / "store"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StorageError, match="not allowed"):
        storage.write_bytes(str(tmp_path / "x"), b"")


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=r"not allowed .*Permission denied"):
        storage.write_bytes(str(tmp_path / "x"), b"")
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_middle_of_reading_is_not_damage(tmp_path, monkeypatch):
    """A connection that breaks says nothing about the file: its rows must not be computed again for
    it.
    """
    uri = str(tmp_path / "t.parquet")
    storage.write_table(uri, table_of(5_000))
    read = files._Reading.read

    def broken(self: object, size: int = -1) -> bytes:
        from deita_tasks.storage.failures import storage_errors

        with storage_errors(uri):
            raise ConnectionResetError(errno.ECONNRESET, "reset by peer")

    monkeypatch.setattr(files._Reading, "read", broken)
    with pytest.raises(StorageError, match="cannot be reached") as caught:
        storage.read_table(uri)
    assert not isinstance(caught.value, DamagedArtifact)
    monkeypatch.setattr(files._Reading, "read", read)
    assert storage.read_table(uri).num_rows == 5_000


def test_an_error_of_the_callers_own_stays_what_it_is(place):
    with pytest.raises(ValueError, match="mine"), storage.write_atomic(f"{place}/x"):
        raise ValueError("mine")


def test_secrets_are_blotted_out(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    def leak(*_: object, **__: object) -> None:
        raise OSError(5, f"signature of {SECRET} does not match")

    monkeypatch.setattr(os, "replace", leak)
    with pytest.raises(StorageError, match="does not match") as caught:
        storage.write_bytes(str(tmp_path / "x"), b"")
    assert SECRET not in str(caught.value)


def test_a_relative_path_and_a_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    storage.write_bytes("store/x", b"1")
    assert storage.find("~/store")[0].name == "x"
    assert storage.expand("store") == [str(tmp_path / "store" / "x")]
    assert Path("store/x").read_bytes() == b"1"
