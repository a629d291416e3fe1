"""Read and write files through fsspec: JSON, Parquet and bytes, each whole or not at all.

A URI is a plain path, `file://`, `s3://`, `memory://`, `hf://` or anything else that fsspec knows.
Everything the project reads or writes goes through this package, so the same guarantees hold on
every kind of store: a file appears whole or not at all, and every failure is a StorageError of one
line (`failures.py`).
"""

from __future__ import annotations

import errno
import glob
import io
import json
import os
import posixpath
import re
import tempfile
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from deita_tasks.errors import DamagedArtifact, DeitaError
from deita_tasks.storage.failures import as_storage_error, storage_errors
from deita_tasks.storage.filesystems import filesystem, is_local
from deita_tasks.strict_json import JsonRecord
from deita_tasks.validation import explain_error

BLOCK = 1 << 20  # bytes read at a time
READ_AHEAD = 8 << 20  # bytes fetched at a time from an object store; s3fs would take 50 MiB
UPLOAD_PART = 16 << 20  # bytes held while uploading; 10,000 parts at most: 160 GiB a file
DRAFT = re.compile(r"\.(.+)\.[0-9a-f]{32}")
UPLOADS_ARE_ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "hf"}

# Arrow's threads need microseconds; until a file leaves this queue, others are read.
_recently_opened: deque[pa.NativeFile] = deque(maxlen=64)

Record = TypeVar("Record", bound=JsonRecord)


class _FileReader(io.RawIOBase):
    """A file open for reading.

    Raises StorageError for what goes wrong in the middle, so that it is never taken for damage.
    """

    def __init__(self, uri: str, **options: Any) -> None:
        self.uri = uri
        fs, path = filesystem(uri)
        with storage_errors(uri):
            self.inner = fs.open(path, "rb", **options)

    def readable(self) -> bool:
        """Return True: io.BufferedReader asks before it reads."""
        return True

    def seekable(self) -> bool:
        """Return whether the store can read from any place; a plain HTTP stream cannot."""
        return bool(self.inner.seekable())

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, for -1 all that are left; b"" at the end.

        Raises StorageError.
        """
        with storage_errors(self.uri):
            return bytes(self.inner.read(size))

    def readall(self) -> bytes:
        """Return the rest of the file in one read; RawIOBase would join many small ones."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fill a writable buffer, and return the number of bytes read, 0 at the end.

        Raises StorageError.
        """
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, and return the new position in bytes from the start. whence: as in io."""
        return int(self.inner.seek(offset, whence))

    def tell(self) -> int:
        """Return the position in bytes from the start."""
        return int(self.inner.tell())

    def close(self) -> None:
        """Close the file in the store; a second call does nothing."""
        if not self.closed:
            self.inner.close()
        super().close()


def open_read(uri: str) -> IO[bytes]:
    """Open `uri` for reading its bytes as they are, nothing decompressed. Raises MissingFile."""
    reader = _FileReader(uri, block_size=READ_AHEAD)
    return cast(IO[bytes], io.BufferedReader(reader, BLOCK))


@contextmanager
def write_atomic(uri: str) -> Iterator[IO[bytes]]:
    """Give a file to write into; it appears under `uri` whole, and only if the block ends well.

    On an object store the upload itself is atomic: the object appears when it is complete.
    Elsewhere the file is written beside its place, under a hidden name, and renamed; on a local
    disk it is flushed to the disk first.
    """
    fs, path = filesystem(uri)
    protocols = [fs.protocol] if isinstance(fs.protocol, str) else fs.protocol
    with storage_errors(uri):
        if isinstance(fs, LocalFileSystem):
            yield from _write_local(path)
        elif UPLOADS_ARE_ATOMIC.isdisjoint(protocols):
            yield from _write_and_move(fs, path)
        else:
            yield from _upload(fs, path)


def _write_local(path: str) -> Iterator[IO[bytes]]:
    """Yield a draft that is renamed to `path` at the end, and removed after an error.

    It is flushed to the disk before the rename, or a power cut could leave an empty file.
    """
    draft = draft_path(path)
    os.makedirs(posixpath.dirname(path), exist_ok=True)
    try:
        with open(draft, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            os.remove(draft)
        raise


def _write_and_move(fs: AbstractFileSystem, path: str) -> Iterator[IO[bytes]]:
    """Yield a draft that is moved to `path` at the end, and removed after an error.

    For stores that show a file while it is written.
    """
    draft = draft_path(path)
    fs.makedirs(posixpath.dirname(path), exist_ok=True)
    try:
        with fs.open(draft, "wb") as handle:
            yield handle
        if glob.has_magic(draft):  # mv takes a name like a[1] for a pattern
            fs.cp_file(draft, path)
            fs.rm_file(draft)
        else:
            fs.mv(draft, path)
    except BaseException:
        with suppress(OSError):
            fs.rm_file(draft)
        raise


def _upload(fs: AbstractFileSystem, path: str) -> Iterator[IO[bytes]]:
    """Yield an upload, which the store shows when it is closed; an error discards it."""
    handle = fs.open(path, "wb", block_size=UPLOAD_PART)
    try:
        yield handle
    except BaseException:
        handle.discard()
        handle.closed = True  # else the garbage collector closes it, which uploads what there is
        raise
    handle.close()


def draft_path(path: str) -> str:
    """Return a hidden name beside `path`, under which it is written before it appears.

    It differs at each call, so writers of one file do not meet.
    """
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name}.{uuid.uuid4().hex}")


def draft_target(name: str) -> str | None:
    """Return the file name that the draft `name` was to become; None if it is not a draft."""
    match = DRAFT.fullmatch(name)
    return match[1] if match else None


@contextmanager
def scratch_folder() -> Iterator[str]:
    """Give a folder in TMPDIR, and remove it at the end with all that is in it.

    Raises StorageError for what goes wrong in it, such as a full disk.
    """
    with storage_errors("TMPDIR"), tempfile.TemporaryDirectory(prefix="deita-") as folder:
        yield folder


def write_bytes(uri: str, content: bytes) -> None:
    """Write `content` under `uri`, atomically: a reader sees all of it or the file before.

    Raises StorageError.
    """
    with write_atomic(uri) as handle:
        handle.write(content)


def create(uri: str, content: bytes) -> bool:
    """Write a small file unless it exists; return whether it did not.

    Of all that try at the same time, one succeeds: the store decides. (A bucket without conditional
    writes only looks first.)
    """
    fs, path = filesystem(uri)
    with storage_errors(uri):
        try:
            if isinstance(fs, LocalFileSystem):  # fsspec's own only looks first
                os.makedirs(posixpath.dirname(path), exist_ok=True)
                with open(path, "xb") as handle:
                    handle.write(content)
            else:
                fs.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno == errno.EBUSY:  # S3: another is creating it
                return False
            if error.errno != errno.ENOSYS:
                raise
            if fs.exists(path):
                return False
            fs.pipe_file(path, content)
    return True


def read_json(uri: str) -> Any:
    """Return the JSON value under `uri`. Raises MissingFile, or DamagedArtifact if not JSON."""
    with open_read(uri) as handle:
        content = handle.read()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedArtifact(f"{uri}: not JSON ({error})") from error


def read_record(uri: str, kind: type[Record]) -> Record:
    """Return the record of class `kind` under `uri`.

    Raises MissingFile, or DamagedArtifact for a file that is not such a record, or is changed.
    """
    return as_record(uri, read_json(uri), kind)


def as_record(uri: str, fields: Any, kind: type[Record]) -> Record:
    """Return `fields`, read from `uri`, as a record of class `kind`. Raises DamagedArtifact."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise DamagedArtifact(f"{uri}: not a {kind.__name__} ({explain_error(error)})") from error


def write_json(uri: str, value: Any) -> None:
    """Write `value` as JSON under `uri`, atomically.

    Sorts the keys, so equal values are equal bytes.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    write_bytes(uri, f"{text}\n".encode())


def write_record(uri: str, record: JsonRecord) -> None:
    """Write `record` as JSON under `uri`, with the digest of its content, atomically."""
    write_json(uri, record.to_file_fields())


@contextmanager
def parquet_writer(uri: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Give a Parquet writer; its file appears under `uri` if the block ends well.

    After an error nothing appears, and a file that was there stays.
    """
    with write_atomic(uri) as handle, write_parquet(handle, schema) as writer:
        yield writer


def write_parquet(handle: IO[bytes], schema: pa.Schema) -> pq.ParquetWriter:
    """Return a Parquet writer into `handle`. Pages carry checksums, so damage is noticed."""
    return pq.ParquetWriter(handle, schema, compression="zstd", write_page_checksum=True)


def write_table(uri: str, table: pa.Table) -> None:
    """Write `table` as one Parquet file under `uri`, atomically."""
    with parquet_writer(uri, table.schema) as writer:
        writer.write_table(table)


@contextmanager
def parquet_file(uri: str) -> Iterator[pq.ParquetFile]:
    """Give the Parquet file under `uri`, which verifies checksums as it reads pages.

    Fetches only what is read: the footer, then the wanted columns of the wanted row groups. Raises
    DamagedArtifact for whatever goes wrong in the block, so it should hold nothing but reads: a
    damaged footer makes Arrow raise almost anything.
    """
    with _open_for_arrow(uri) as handle:
        try:
            yield pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=True)
        except (DeitaError, MemoryError):  # not the fault of the file
            raise
        except Exception as error:
            if isinstance(error, NotImplementedError) and not pa.Codec.is_available("zstd"):
                raise  # this Arrow reads no file of ours; else a bit of the file asks for the odd
            # EINVAL: a damaged footer names a place outside the file.
            if getattr(error, "errno", None) not in (None, errno.EINVAL):
                raise as_storage_error(uri, error) or error from error
            raise DamagedArtifact(f"{uri}: not readable as Parquet ({error})") from error


def _open_for_arrow(uri: str) -> pa.NativeFile:
    """Open `uri` for Arrow, whose threads may let go of a file after the read has returned.

    If such a thread destroys a Python object while Python ends, the process aborts. So a local file
    is none, and of another one more reference is kept.
    """
    if is_local(uri):
        with storage_errors(uri):
            return pa.OSFile(filesystem(uri)[1])
    handle = pa.PythonFile(_FileReader(uri, cache_type="none"), mode="r")
    _recently_opened.append(handle)
    return handle


def read_table(
    uri: str, columns: Sequence[str] | None = None, schema: pa.Schema | None = None
) -> pa.Table:
    """Return the table under `uri`, or some of its columns.

    schema: of the columns that are read. Raises DamagedArtifact for another schema, or for values
    that are not valid.
    """
    with parquet_file(uri) as parquet:
        table = parquet.read(columns=None if columns is None else list(columns))
        table.validate(full=True)
    if schema is not None and not table.schema.equals(schema):
        raise DamagedArtifact(
            f"{uri}: columns {_describe_schema(table.schema)}; expected {_describe_schema(schema)}"
        )
    return table


def _describe_schema(schema: pa.Schema) -> str:
    """Return names and types for a message, as in "id (string), cut (int32)"."""
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
