"""Files in a local folder, in S3 or in memory, through fsspec; whole or not at all.

A URI is a plain path, `file://`, `s3://`, `memory://`, `hf://` or whatever else fsspec knows. Everything that the project reads
or writes goes through here, so that what holds for one kind of store holds for all.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import posixpath
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from deita_tasks.errors import DamagedArtifact, InputError, MissingFile, StorageError, UsageError

BLOCK = 1 << 20  # bytes read at a time while hashing or copying


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """The file system behind `uri` and the path on it. Raises UsageError for a scheme that nobody serves."""
    # s3fs remembers listings: without this, exists() is False for a key that another process has just written.
    options: dict[str, Any] = {"use_listings_cache": False} if uri.startswith(("s3://", "s3a://")) else {}
    try:
        fs, path = fsspec.url_to_fs(uri, **options)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{uri!r}: {error}; expected a path, s3://, hf:// or memory://") from error
    return fs, path


def is_local(uri: str) -> bool:
    """Whether `uri` names a file of this machine."""
    return isinstance(filesystem(uri)[0], LocalFileSystem)


def join(base: str, *parts: str) -> str:
    """`base` with `parts` appended. No part may be absolute or climb out of `base`: a name read from data stays inside."""
    for part in parts:
        if part.startswith("/") or ".." in part.split("/") or "\\" in part or "\0" in part:
            raise StorageError(f"{part!r}: expected a name inside {base}, not a path out of it")
    return posixpath.join(base, *parts)


def expand(uri: str) -> list[str]:
    """The files that `uri` names, sorted: the file itself, all files below a folder, or what a glob matches.

    Hidden files (and those in hidden folders) are left out below a folder. Raises InputError where nothing is there.
    """
    fs, path = filesystem(uri)
    if fs.isfile(path):
        found = [path]
    elif fs.isdir(path):
        found = [one for one in fs.find(path) if not any(step.startswith((".", "_")) for step in _below(one, path).split("/"))]
        if not found:
            raise InputError(f"{uri}: the folder holds no files; expected a pool of conversations")
    elif glob.has_magic(path):
        found = [one for one in fs.glob(path) if fs.isfile(one)]
        if not found:
            raise InputError(f"{uri}: no file matches this pattern")
    else:
        raise InputError(f"{uri}: no such file or folder")
    return sorted(_with_scheme(fs, one) for one in found)


def _below(path: str, folder: str) -> str:
    return path[len(folder) :].strip("/")


def _with_scheme(fs: AbstractFileSystem, path: str) -> str:
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def open_read(uri: str) -> IO[bytes]:
    """`uri` opened for reading bytes, as they lie there (nothing decompressed). Raises MissingFile."""
    fs, path = filesystem(uri)
    try:
        handle: IO[bytes] = fs.open(path, "rb")
    except FileNotFoundError as error:
        raise MissingFile(f"{uri}: no such file") from error
    return handle


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(uri)
    return bool(fs.exists(path))


def is_empty(folder: str) -> bool:
    """Whether there is nothing under `folder`, or no such folder. Raises UsageError where it is a file."""
    fs, path = filesystem(folder)
    if fs.isfile(path):
        raise UsageError(f"{folder}: is a file; expected a folder")
    try:
        return not fs.ls(path, detail=False)
    except FileNotFoundError:
        return True


def list_files(folder: str, suffix: str = "") -> list[str]:
    """URIs of the files directly in `folder` whose name ends with `suffix`, sorted; [] where there is no such folder."""
    fs, path = filesystem(folder)
    try:
        entries = fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    names = [posixpath.basename(entry["name"].rstrip("/")) for entry in entries if entry["type"] == "file"]
    return sorted(join(folder, name) for name in names if name.endswith(suffix) and not name.startswith("."))


@contextmanager
def write_atomic(uri: str) -> Iterator[IO[bytes]]:
    """A file to write into that appears under `uri` when the block ends well, whole, and not at all when it does not.

    On local disks: written beside it under a hidden name, flushed to the disk, renamed. On object stores the upload itself is
    atomic: the object appears when it is complete.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        folder, name = posixpath.split(path)
        os.makedirs(folder, exist_ok=True)
        draft = posixpath.join(folder, f".{name}.{uuid.uuid4().hex}")
        try:
            with open(draft, "wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(draft, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.remove(draft)
            raise
        return
    handle = fs.open(path, "wb")
    try:
        yield handle
    except BaseException:
        handle.discard()
        raise
    handle.close()


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
    """Write `value` as JSON under `uri`, atomically; keys sorted, so that equal values are equal bytes."""
    write_bytes(uri, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


@contextmanager
def parquet_writer(uri: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A Parquet writer whose file appears under `uri` when the block ends well. Pages carry checksums, so damage is noticed."""
    with write_atomic(uri) as handle, pq.ParquetWriter(handle, schema, compression="zstd", write_page_checksum=True) as writer:
        yield writer


def write_table(uri: str, table: pa.Table) -> None:
    """Write `table` as one Parquet file under `uri`, atomically."""
    with parquet_writer(uri, table.schema) as writer:
        writer.write_table(table)


@contextmanager
def parquet_file(uri: str) -> Iterator[pq.ParquetFile]:
    """The Parquet file under `uri`, checksums verified as pages are read. Raises DamagedArtifact for what is not one."""
    with open_read(uri) as handle:
        try:
            yield pq.ParquetFile(handle, page_checksum_verification=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise DamagedArtifact(f"{uri}: not readable as Parquet ({error})") from error


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """The table (or some columns of it) under `uri`. Raises DamagedArtifact where it cannot be read."""
    with parquet_file(uri) as parquet:
        return parquet.read(columns=columns)


def content_digest(uri: str) -> str:
    """A digest that changes when the content of the file does: "sha256:<hex>" of a local file, the store's own token elsewhere.

    An object store gives its ETag or version with the listing, so a large object need not be downloaded to see that it is the same.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        return f"sha256:{sha256_of(uri)}"
    info = fs.info(path)
    token = (
        info.get("ETag") or info.get("etag") or info.get("blob_id") or info.get("LastModified") or info.get("mtime") or info.get("created")
    )
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
    fs, path = filesystem(uri)
    return {"bytes": int(fs.size(path)), "sha256": sha256_of(uri)}


def is_same(uri: str, facts: Mapping[str, Any]) -> bool:
    """Whether the file is there and is what `describe` saw: by sha256 on a local disk, by size where that would mean a download."""
    fs, path = filesystem(uri)
    if not fs.exists(path) or fs.size(path) != facts["bytes"]:
        return False
    return not isinstance(fs, LocalFileSystem) or sha256_of(uri) == facts["sha256"]


def digest_of(value: Any) -> str:
    """32 hex digits that name a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()[:32]


def publish(folder: str, uri: str) -> None:
    """Put a finished local folder under `uri`, in the place of what is there; the folder is used up.

    On a local disk the whole result changes by one rename. On an object store manifest.json goes last, after the rest has arrived:
    a result without it is not one.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        os.makedirs(posixpath.dirname(path), exist_ok=True)
        draft, old = f"{path}.{uuid.uuid4().hex}.new", f"{path}.{uuid.uuid4().hex}.old"
        try:
            shutil.move(folder, draft)  # from another disk, perhaps: a copy
            if os.path.isdir(path):
                os.rename(path, old)
            os.rename(draft, path)
        except OSError:
            if os.path.isdir(old) and not os.path.isdir(path):
                os.rename(old, path)
            raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
        return
    files = [posixpath.join(base, name) for base, _, names in os.walk(folder) for name in names]
    remove(uri)
    for file in sorted(files, key=lambda file: file.endswith("/manifest.json")):
        fs.put_file(file, posixpath.join(path, os.path.relpath(file, folder)))
    shutil.rmtree(folder)


def remove(uri: str) -> None:
    """Remove a file or a folder with all in it; nothing happens where there is none."""
    fs, path = filesystem(uri)
    with suppress(FileNotFoundError):
        fs.rm(path, recursive=True)
