"""URIs, and what is there: every case over a local folder, memory:// and S3."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from deita_tasks import storage
from deita_tasks.errors import InputError, StorageError, UsageError

pytest_plugins = ["tests.support.s3_fixtures"]


def names_in(folder: str) -> list[str]:
    return [file.name for file in storage.find(folder)]


# ---- listings


def test_listing(place):
    for name in ("b.parquet", "a.parquet", "c.json", ".hidden.parquet", "below/d.parquet"):
        storage.write_bytes(f"{place}/{name}", b"x")
    assert storage.list_files(place, ".parquet") == [f"{place}/a.parquet", f"{place}/b.parquet"]
    files = storage.find(place)
    assert [file.name for file in files] == [
        ".hidden.parquet",
        "a.parquet",
        "b.parquet",
        "below/d.parquet",
        "c.json",
    ]
    now = datetime.now(UTC)
    assert all(file.bytes == 1 for file in files)
    assert all(abs(file.modified - now) < timedelta(minutes=1) for file in files)
    assert not storage.is_empty(place)
    with pytest.raises(UsageError, match="is a file; expected a folder"):
        storage.is_empty(f"{place}/c.json")


def test_a_folder_that_is_not_there_is_empty(place):
    assert storage.list_files(place) == []
    assert storage.find(place) == []
    assert storage.is_empty(place)


def test_what_another_process_writes_is_seen(s3):
    uri = f"s3://{s3.bucket()}/place"
    assert storage.list_files(uri) == []
    other_process = fsspec.filesystem("s3", skip_instance_cache=True)
    other_process.pipe(f"{uri}/new", b"x")
    assert storage.exists(f"{uri}/new")
    assert storage.list_files(uri) == [f"{uri}/new"]
    other_process.pipe(f"{uri}/newer", b"x")
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

    def expanded(uri: str) -> list[str]:
        return [file.split("place/", 1)[1] for file in storage.expand(uri).files]

    assert expanded(place) == ["a 1.jsonl", "b.jsonl", "sub/c.jsonl", "ü[1].jsonl"]
    assert expanded(f"{place}/") == expanded(place)
    assert expanded(f"{place}/*.jsonl") == ["a 1.jsonl", "b.jsonl", "ü[1].jsonl"]
    assert expanded(f"{place}/**/*.jsonl") == ["a 1.jsonl", "b.jsonl", "sub/c.jsonl", "ü[1].jsonl"]
    assert expanded(f"{place}/.git/*") == [".git/config"]  # hidden, but the pattern names it
    # a file's own name, although it looks like a pattern
    assert expanded(f"{place}/ü[1].jsonl") == ["ü[1].jsonl"]
    for uri in storage.expand(place).files:
        assert storage.exists(uri)
    missing = {
        "nothing": "no such file or folder",
        "*.csv": "no file matches this pattern",
        ".git/*/x?": "no file matches",
    }
    for name, problem in missing.items():
        with pytest.raises(InputError, match=problem):
            storage.expand(f"{place}/{name}")


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
    assert storage.expand(uri).files == [f"{uri}/pool.jsonl"]


# ---- names and paths


@pytest.mark.parametrize(
    "part", ["../x", "a/../../x", "/etc/passwd", "..", "a\\..\\x", "a\0", "", ".", "./x"]
)
def test_no_name_leads_out(place, part):
    with pytest.raises(StorageError, match="expected a name inside"):
        storage.join(place, part)


def test_names_that_only_look_like_it_are_fine():
    assert storage.join("s3://bucket", "a..b", "...", "c") == "s3://bucket/a..b/.../c"


def test_a_path_within_a_folder(place):
    assert storage.path_in(f"{place}/deep/file", place) == "deep/file"
    assert storage.path_in(f"{place}/deep/file", f"{place}/") == "deep/file"
    assert storage.path_in(f"{place}/", place) == ""
    # a folder whose name begins alike is another one
    assert storage.path_in(f"{place}s/file", place) is None
    assert storage.path_in(place, f"{place}/deep") is None


def test_a_path_of_another_kind_of_store_is_not_in_a_folder():
    assert storage.path_in("memory://pools/file", "/pools") is None


def test_a_relative_path_and_a_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    storage.write_bytes("store/x", b"1")
    assert names_in("~/store") == ["x"]
    assert storage.expand("store").files == [str(tmp_path / "store" / "x")]
    assert storage.absolute("store") == str(tmp_path / "store")
    assert storage.absolute("s3://bucket/store") == "s3://bucket/store"
    assert Path("store/x").read_bytes() == b"1"


def test_a_scheme_without_a_file_system():
    with pytest.raises(
        UsageError, match=r"expected a path, s3://, gs://, abfs://, hf:// or memory://"
    ):
        storage.filesystem("nosuchscheme://x")


# ---- changes


def test_only_what_is_named_is_removed(place):
    for name in ("a[1]", "a1", "b*", "bc", "folder[x]/inside", "folderx/inside"):
        storage.write_bytes(f"{place}/{name}", b"x")
    for name in ("a[1]", "b*", "folder[x]"):
        storage.remove(f"{place}/{name}")
    assert names_in(place) == ["a1", "bc", "folderx/inside"]


def test_nothing_is_removed_where_nothing_is(place):
    storage.remove(f"{place}/nothing")


def test_a_bucket_is_checked_before_it_is_written(s3):
    with pytest.raises(UsageError, match="no such bucket: 'no-such-bucket-here'"):
        storage.check_writable("s3://no-such-bucket-here/x")
    with pytest.raises(UsageError, match="no such bucket"):
        storage.check_writable("s3://")
    storage.check_writable(f"s3://{s3.bucket()}/anything")


def test_a_folder_is_checked_before_it_is_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is not a folder"):
        storage.check_writable(str(tmp_path / "file" / "store"))
    storage.check_writable(str(tmp_path / "new" / "store"))
    # tests may run as root, who may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match="no permission to write in"):
        storage.check_writable(str(tmp_path / "new" / "store"))


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9/pool.jsonl",
        "https://host/pool.jsonl",
        "ftp://host/pool.jsonl",
        "github://owner:repo@/pool.jsonl",
        "reference://x",
        "simplecache::http://127.0.0.1:9/x",
        "simplecache::s3://bucket/x",
        "zip://a.txt::/tmp/x.zip",
        "filecache::file:///etc/passwd",
        "data://text/plain,x",
    ],
)
def test_nothing_is_fetched_from_other_places(uri: str) -> None:
    with pytest.raises(UsageError, match="files are not read from"):
        storage.filesystem(uri)


def test_a_local_name_may_hold_colons(tmp_path):
    path = tmp_path / "pool::v2.jsonl"
    path.write_text("{}")
    assert storage.is_local(str(path))
    assert storage.size_of(str(path)) == 2


@pytest.mark.parametrize("scheme", ["s3", "gs", "memory", "http"])
def test_a_password_in_an_address_is_refused_and_not_repeated(scheme: str) -> None:
    with pytest.raises(UsageError) as caught:
        storage.filesystem(f"{scheme}://me:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value)
    assert "***" in str(caught.value)
