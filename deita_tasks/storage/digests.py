"""Digests of files, to notice that one has changed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping

from fsspec.implementations.local import LocalFileSystem
from pydantic import NonNegativeInt

from deita_tasks.errors import DamagedArtifact, MissingFile
from deita_tasks.storage.failures import storage_errors
from deita_tasks.storage.files import open_read
from deita_tasks.storage.filesystems import filesystem, is_local, join, size_of
from deita_tasks.strict_json import JsonRecord

BLOCK = 1 << 20  # bytes hashed at a time

# A younger file may change again without a change of its time: clocks of disks tick slowly.
SETTLED_SECONDS = 2.0
_local_digests: dict[tuple[str, int, int, int], str] = {}

# Fields by which a file system tells that an object has changed, the most reliable first.
VERSION_FIELDS = ("ETag", "etag", "blob_id", "LastModified", "mtime", "created")


class FileInfo(JsonRecord):
    """Size in bytes and sha256 in hex of a file, as it was when somebody looked."""

    sha256: str
    bytes: NonNegativeInt


def describe(uri: str) -> FileInfo:
    """Return size and sha256 of a file. Raises MissingFile."""
    return FileInfo(bytes=size_of(uri), sha256=sha256_of(uri))


def check_file(uri: str, info: FileInfo) -> None:
    """Raise MissingFile, or DamagedArtifact if the file is not what `info` says.

    Compares the sha256 on a local disk; elsewhere, where that would download the file, the size.
    """
    size = size_of(uri)
    if size != info.bytes:
        raise DamagedArtifact(f"{uri}: {size:,} bytes; expected the {info.bytes:,} written")
    if is_local(uri) and local_sha256(uri) != info.sha256:
        raise DamagedArtifact(f"{uri}: its bytes are not those that were written")


def checked_file(folder: str, name: str, info: FileInfo) -> str:
    """Return the URI of a file in `folder`. Raises as `check_file` does."""
    uri = join(folder, name)
    check_file(uri, info)
    return uri


def is_same(uri: str, info: FileInfo) -> bool:
    """Return whether the file exists and still is what `info` says (see `check_file`)."""
    try:
        check_file(uri, info)
    except (MissingFile, DamagedArtifact):
        return False
    return True


def are_same(folder: str, infos: Mapping[str, FileInfo]) -> bool:
    """Return whether each file of a folder still is what `infos` says, by its name (`is_same`)."""
    return all(is_same(join(folder, name), info) for name, info in infos.items())


def content_digest(uri: str) -> str:
    """Return a digest that changes when the content of the file does.

    "sha256:<hex>" for a local file. An object store gives its ETag or version with the listing, so
    a large object need not be downloaded: "token:<hex>" is the digest of that and of the size.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        return f"sha256:{sha256_of(uri)}"
    with storage_errors(uri):
        info = fs.info(path)
    version = next((info[name] for name in VERSION_FIELDS if info.get(name)), None)
    if version is None:
        return f"sha256:{sha256_of(uri)}"
    return "token:" + hashlib.sha256(f"{version} {info.get('size')}".encode()).hexdigest()


def local_sha256(uri: str, again: bool = False) -> str:
    """Return the sha256 of a local file; remembers it while size and time stay the same.

    again: look at the bytes, whatever it remembers: a disk may lose a bit and keep the time.
    """
    with storage_errors(uri):
        path = filesystem(uri)[1]
        stat = os.stat(path)
    key = (path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    digest = None if again else _local_digests.get(key)
    if digest is None:
        digest = sha256_of(uri)
        if time.time() - stat.st_mtime > SETTLED_SECONDS:
            _local_digests[key] = digest
    return digest


def sha256_of(uri: str) -> str:
    """Return the sha256 of the file's bytes, in hex: 64 digits. Reads all of it.

    Raises MissingFile.
    """
    digest = hashlib.sha256()
    with open_read(uri) as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
