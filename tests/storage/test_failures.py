"""Failures are told in one line, without credentials."""

from __future__ import annotations

import errno
import os
import shutil
import stat

import pytest

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, InputError, MissingFile, StorageError
from deita_tasks.storage import files
from deita_tasks.storage.failures import storage_errors
from tests.support.s3 import S3, SECRET
from tests.support.tables import table_of

pytest_plugins = ["tests.support.s3_fixtures"]


# ---- S3


def test_a_missing_bucket(s3):
    with pytest.raises(InputError, match="no such file or folder"):
        storage.expand("s3://no-such-bucket-here/pool.jsonl")
    with pytest.raises(MissingFile, match="no such bucket"):
        storage.write_bytes("s3://no-such-bucket-here/x", b"x")


def test_no_credentials(s3, monkeypatch):
    bucket = s3.bucket()
    s3.use(monkeypatch, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    with pytest.raises(StorageError, match=r"no usable credentials .*AWS_PROFILE") as caught:
        storage.write_bytes(f"s3://{bucket}/x", b"x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        storage.exists,
        storage.expand,
        storage.read_json,
        storage.find,
        storage.read_table,
        storage.check_writable,
        lambda uri: storage.write_bytes(uri, b"x"),
    ],
)
def test_a_server_that_is_not_there(call, monkeypatch):
    S3("http://127.0.0.1:9").use(monkeypatch, AWS_MAX_ATTEMPTS="1")
    with pytest.raises(StorageError, match="the store cannot be reached") as caught:
        call("s3://bucket/x")
    assert not isinstance(caught.value, DamagedArtifact | MissingFile)


# ---- disks


def test_a_full_disk(tmp_path, monkeypatch):
    uri = str(tmp_path / "t.parquet")
    storage.write_table(uri, table_of(10))

    def fill_up(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill_up)
    message = r"t\.parquet: the disk is full; make room and run again"
    with pytest.raises(StorageError, match=message):
        storage.write_table(uri, table_of(5_000))
    assert os.listdir(tmp_path) == ["t.parquet"]
    assert storage.read_table(uri).num_rows == 10


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_is_full_in_the_middle_of_a_table(tmp_path, monkeypatch):
    """The error goes through pyarrow and keeps its meaning."""
    real_open = open

    def open_full(path, mode="r", *arguments, **options):
        return real_open("/dev/full" if mode == "wb" else path, mode, *arguments, **options)

    monkeypatch.setattr("builtins.open", open_full)
    with pytest.raises(StorageError, match="the disk is full"):
        storage.write_table(str(tmp_path / "t.parquet"), table_of(50_000))
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_full_for_a_whole_folder():
    """shutil puts the errors of all files into one, which has no number."""
    problem = f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: 'a' -> 'b'"
    with pytest.raises(StorageError, match="output: the disk is full"), storage_errors("output"):
        raise shutil.Error([("a", "b", problem)])


def test_a_scratch_folder_on_a_full_disk():
    folders = []
    with (
        pytest.raises(StorageError, match="TMPDIR: the disk is full"),
        storage.scratch_folder() as folder,
    ):
        folders.append(folder)
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not os.path.exists(folders[0])


def test_a_folder_in_place_of_which_there_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/store"):
        storage.write_bytes(str(tmp_path / "file" / "store"), b"")


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


def test_a_read_only_disk(tmp_path):
    with (
        pytest.raises(StorageError, match="the disk is read-only; expected a place"),
        storage_errors("store"),
    ):
        raise OSError(errno.EROFS, "Read-only file system")


# ---- what is no failure of the store, and what may not be told


def test_an_error_in_the_middle_of_reading_is_not_damage(monkeypatch):
    """A broken connection says nothing about the file, whose rows are not to be computed again."""
    uri = "memory://broken/t.parquet"
    storage.write_table(uri, table_of(5_000))

    def break_off(self: object, size: int = -1) -> bytes:
        with storage_errors(uri):
            raise ConnectionResetError(errno.ECONNRESET, "reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr(files._FileReader, "read", break_off)
        with pytest.raises(StorageError, match="cannot be reached") as caught:
            storage.read_table(uri)
    assert not isinstance(caught.value, DamagedArtifact)
    assert storage.read_table(uri).num_rows == 5_000


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.EIO, StorageError), (errno.EINVAL, DamagedArtifact)]
)
def test_a_local_disk_that_fails_is_not_damage(tmp_path, monkeypatch, number, expected):
    uri = str(tmp_path / "t.parquet")
    storage.write_table(uri, table_of(10))

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "as Arrow raises it")

    monkeypatch.setattr(files.pq.ParquetFile, "read", fail)
    with pytest.raises(StorageError, match=r"t\.parquet: ") as caught:
        storage.read_table(uri)
    assert type(caught.value) is expected


def test_an_error_of_the_callers_own_passes_through(place):
    with pytest.raises(ValueError, match="mine"), storage.write_atomic(f"{place}/x"):
        raise ValueError("mine")


def test_secrets_are_replaced(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    def leak(*_: object, **__: object) -> None:
        raise OSError(5, f"signature of {SECRET} does not match")

    monkeypatch.setattr(os, "replace", leak)
    with pytest.raises(StorageError, match="does not match") as caught:
        storage.write_bytes(str(tmp_path / "x"), b"")
    assert SECRET not in str(caught.value)
