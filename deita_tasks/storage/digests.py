"""Digests: of files, to notice that one has changed, and of JSON values, to name them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from pydantic import NonNegativeInt

from deita_tasks.errors import MissingFile
from deita_tasks.storage.failures import storage_errors
from deita_tasks.storage.files import open_read
from deita_tasks.storage.filesystems import filesystem, is_local, size_of
from deita_tasks.strict_json import JsonRecord

BLOCK = 1 << 20  # bytes hashed at a time

# Fields by which a file system tells that an object has changed, the most reliable first.
VERSION_FIELDS = ("ETag", "etag", "blob_id", "LastModified", "mtime", "created")


class FileInfo(JsonRecord):
    """Size in bytes and sha256 in hex of a file, as it was when somebody looked."""

    sha256: str
    bytes: NonNegativeInt


def describe(uri: str) -> FileInfo:
    """Return size and sha256 of a file. Raises MissingFile."""
    return FileInfo(bytes=size_of(uri), sha256=sha256_of(uri))


def is_same(uri: str, info: FileInfo) -> bool:
    """Return whether the file exists and still is what `info` says.

    Compares the sha256 on a local disk; elsewhere, where that would download the file, the size.
    """
    try:
        if size_of(uri) != info.bytes:
            return False
        return not is_local(uri) or sha256_of(uri) == info.sha256
    except MissingFile:
        return False


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


def sha256_of(uri: str) -> str:
    """Return the sha256 of the file's bytes, in hex."""
    digest = hashlib.sha256()
    with open_read(uri) as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Return 32 hex digits that name a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
