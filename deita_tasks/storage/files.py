"""Files in a local folder, in S3 or in memory, through fsspec; whole or not at all.

A URI is a plain path, `file://`, `s3://`, `memory://`, `hf://` or whatever else fsspec knows.
Everything that the project reads or writes goes through here, so that what holds for one kind of
store holds for all: a file appears whole or not at all, and whatever goes wrong is a StorageError
in one line (`faults.py`). Where files lie and what is there is in `places.py`.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import posixpath
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from deita_tasks.errors import DamagedArtifact, MissingFile
from deita_tasks.storage.failures import storage_errors
from deita_tasks.storage.filesystems import filesystem, is_local, size_of

BLOCK = 1 << 20  # bytes read at a time while hashing or copying
READ_AHEAD = 8 << 20  # bytes fetched at a time from an object store; s3fs would take 50 MiB
UPLOAD_PART = 16 << 20  # bytes held while uploading; 10,000 parts at most: 160 GiB a file
UPLOADS_ARE_ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "hf"}


class _Reading(io.RawIOBase):
    """A file that is read: what goes wrong in the middle of it is told like everything else, and
    never taken for damage.
    """

    def __init__(self, uri: str, **how: Any) -> None:
        self.uri = uri
        fs, path = filesystem(uri)
        with storage_errors(uri):
            self.inner = fs.open(path, "rb", **how)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self.inner.seekable())

    def read(self, size: int = -1) -> bytes:
        with storage_errors(self.uri):
            return bytes(self.inner.read(size))

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self.inner.seek(offset, whence))

    def tell(self) -> int:
        return int(self.inner.tell())

    def close(self) -> None:
        if not self.closed:
            self.inner.close()
        super().close()


def open_read(uri: str) -> IO[bytes]:
    """`uri` opened for reading bytes, as they lie there (nothing decompressed). Raises MissingFile."""
    return cast(IO[bytes], io.BufferedReader(_Reading(uri, block_size=READ_AHEAD), BLOCK))


@contextmanager
def write_atomic(uri: str) -> Iterator[IO[bytes]]:
    """A file to write into that appears under `uri` when the block ends well, whole, and not at all
    when it does not.

    On an object store the upload itself is atomic: the object appears when it is complete.
    Elsewhere it is written beside its place, under a hidden name, and renamed; on a local disk it
    is flushed to the disk before.
    """
    fs, path = filesystem(uri)
    with storage_errors(uri):
        if isinstance(fs, LocalFileSystem):
            yield from _write_local(path)
        elif UPLOADS_ARE_ATOMIC.isdisjoint(
            [fs.protocol] if isinstance(fs.protocol, str) else fs.protocol
        ):
            yield from _write_beside(fs, path)
        else:
            handle = fs.open(path, "wb", block_size=UPLOAD_PART)
            try:
                yield handle
            except BaseException:
                handle.discard()
                handle.closed = (
                    True  # or the garbage collector would close it, and so upload what there is
                )
                raise
            handle.close()


def _write_local(path: str) -> Iterator[IO[bytes]]:
    draft = _draft(path)
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


def _write_beside(fs: AbstractFileSystem, path: str) -> Iterator[IO[bytes]]:
    draft = _draft(path)
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


def _draft(path: str) -> str:
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name}.{uuid.uuid4().hex}")


def write_bytes(uri: str, content: bytes) -> None:
    """Write `content` under `uri`, atomically."""
    with write_atomic(uri) as handle:
        handle.write(content)


def read_json(uri: str) -> Any:
    """The JSON value under `uri`. Raises MissingFile, or DamagedArtifact where it is not JSON."""
    with open_read(uri) as handle:
        content = handle.read()
    try:
        return json.loads(content)
    except ValueError as error:
        raise DamagedArtifact(f"{uri}: not JSON ({error})") from error


def write_json(uri: str, value: Any) -> None:
    """Write `value` as JSON under `uri`, atomically; keys sorted, so that equal values are equal
    bytes.
    """
    write_bytes(
        uri, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    )


@contextmanager
def parquet_writer(uri: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A Parquet writer whose file appears under `uri` when the block ends well. Pages carry
    checksums, so damage is noticed.
    """
    with (
        write_atomic(uri) as handle,
        pq.ParquetWriter(handle, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        yield writer


def write_table(uri: str, table: pa.Table) -> None:
    """Write `table` as one Parquet file under `uri`, atomically."""
    with parquet_writer(uri, table.schema) as writer:
        writer.write_table(table)


@contextmanager
def parquet_file(uri: str) -> Iterator[pq.ParquetFile]:
    """The Parquet file under `uri`, checksums verified as pages are read. Raises DamagedArtifact
    for what is not one.

    Only what is asked for is fetched: the footer, then the wanted columns of the wanted row groups.
    """
    remote: dict[str, Any] = {} if is_local(uri) else {"cache_type": "none"}
    with _Reading(uri, **remote) as handle:
        try:
            yield pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=True)
        except (MemoryError, NotImplementedError):  # of Arrow too, and no word on the file
            raise
        except (pa.ArrowException, OSError) as error:
            raise DamagedArtifact(f"{uri}: not readable as Parquet ({error})") from error


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """The table (or some columns of it) under `uri`. Raises DamagedArtifact where it cannot be
    read.
    """
    with parquet_file(uri) as parquet:
        return parquet.read(columns=columns)


def content_digest(uri: str) -> str:
    """A digest that changes when the content of the file does: "sha256:<hex>" of a local file, the
    store's own token elsewhere.

    An object store gives its ETag or version with the listing, so a large object need not be
    downloaded to see that it is the same.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        return f"sha256:{sha256_of(uri)}"
    with storage_errors(uri):
        info = fs.info(path)
    names = ("ETag", "etag", "blob_id", "LastModified", "mtime", "created")
    token = next((info[name] for name in names if info.get(name)), None)
    if token is None:
        return f"sha256:{sha256_of(uri)}"
    return "token:" + hashlib.sha256(f"{token} {info.get('size')}".encode()).hexdigest()


def sha256_of(uri: str) -> str:
    """sha256 of the file's bytes, in hex."""
    digest = hashlib.sha256()
    with open_read(uri) as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def describe(uri: str) -> dict[str, Any]:
    """{"bytes", "sha256"} of a file, for `is_same`."""
    return {"bytes": size_of(uri), "sha256": sha256_of(uri)}


def is_same(uri: str, facts: Mapping[str, Any]) -> bool:
    """Whether the file is there and is what `describe` saw: by sha256 on a local disk, by size
    where that would mean a download.
    """
    try:
        return size_of(uri) == facts["bytes"] and (
            not is_local(uri) or sha256_of(uri) == facts["sha256"]
        )
    except MissingFile:
        return False


def digest_of(value: Any) -> str:
    """32 hex digits that name a JSON value."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()[:32]
