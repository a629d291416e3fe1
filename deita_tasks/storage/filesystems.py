"""Where files lie: URIs, the file systems behind them, and what is there."""

from __future__ import annotations

import glob
import os
import posixpath
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from deita_tasks.addresses import check_no_password, without_password
from deita_tasks.errors import StorageError, UsageError
from deita_tasks.storage.failures import storage_errors

S3_SCHEMES = ("s3://", "s3a://")
# Pauses of up to 1, 2, 4 … 20 s at random: bridges some 35 s without the store, or of overload.
S3_ATTEMPTS = 8

SCHEMES = {"file", "local", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "hf", "memory"}
PACKAGES = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "hf": "huggingface_hub",
}
PLACES = "a path, s3://, gs://, abfs://, hf:// or memory://"
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*?)://")

# Fields in which file systems give the time of the last change.
TIME_FIELDS = ("LastModified", "mtime", "last_modified", "created")

_s3_filesystems: dict[tuple[object, ...], AbstractFileSystem] = {}


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system behind `uri` and the path on it.

    Raises UsageError for a scheme without a file system.
    """
    scheme = _scheme_of(uri)
    try:
        if is_s3(uri):
            fs = _s3_filesystem()
        else:
            kind = fsspec.get_filesystem_class(scheme)
            fs = kind(**kind._get_kwargs_from_urls(uri))
        return fs, fs._strip_protocol(uri)
    except ImportError as error:
        package = PACKAGES.get(scheme, "")
        advice = f"pip install {package}" if package else str(error)
        raise UsageError(
            f"{without_password(uri)!r}: {scheme}:// needs a package that is not installed; "
            f"{advice}"
        ) from error
    except ValueError as error:
        message = f"{without_password(uri)!r}: {error}; expected {PLACES}"
        raise UsageError(message) from error


def _scheme_of(uri: str) -> str:
    """Return the scheme of `uri`; raise UsageError for one that we do not read from.

    fsspec knows many more: archives, caches and chains ("simplecache::http://..."), which would
    fetch from anywhere whatever a shared file names.
    """
    match = SCHEME.match(uri)
    if match is None:
        return "file"
    scheme = match[1].lower()
    if scheme not in SCHEMES:
        advice = "; download it first" if scheme in ("http", "https", "ftp") else ""
        raise UsageError(
            f"{without_password(uri)!r}: files are not read from {scheme}://{advice}; expected "
            f"{PLACES}"
        )
    try:
        check_no_password(uri)
    except ValueError as error:
        raise UsageError(f"{without_password(uri)!r}: {error}") from None
    return scheme


def _s3_filesystem() -> AbstractFileSystem:
    """Return one file system per process and AWS environment.

    fsspec would make one for each thread, each with connections of its own, and keep it when the
    environment changes.
    """
    environment = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    key = (os.getpid(), *environment)
    if key not in _s3_filesystems:
        _s3_filesystems[key] = fsspec.filesystem("s3", skip_instance_cache=True, **_s3_options())
    return _s3_filesystems[key]


def _s3_options() -> dict[str, Any]:
    """Return the options of an S3 file system, besides the user's environment; no credentials."""
    retries = {
        "mode": os.environ.get("AWS_RETRY_MODE", "standard"),  # exponential backoff with jitter
        "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", S3_ATTEMPTS)),
    }
    # s3fs remembers listings: without this, exists() is False for a key that another process has
    # just written.
    return {"use_listings_cache": False, "config_kwargs": {"retries": retries}}


def is_s3(uri: str) -> bool:
    """Return whether `uri` is in S3, by its scheme alone."""
    return uri.startswith(S3_SCHEMES)


def is_local(uri: str) -> bool:
    """Return whether `uri` names a file of this machine."""
    return isinstance(filesystem(uri)[0], LocalFileSystem)


def absolute(uri: str) -> str:
    """Return `uri` for any working directory: a local path from the root, others as they are."""
    fs, path = filesystem(uri)
    return path if isinstance(fs, LocalFileSystem) else uri


def join(base: str, *parts: str) -> str:
    """Return `base` with `parts` appended.

    Raises StorageError for a part that is absolute or leads out of `base`, so a name read from data
    stays inside.
    """
    for part in parts:
        leads_out = part.startswith("/") or not {".", ".."}.isdisjoint(part.split("/"))
        if not part or leads_out or "\\" in part or "\0" in part:
            raise StorageError(f"{part!r}: expected a name inside {base}, not a path out of it")
    return posixpath.join(base, *parts)


def path_in(uri: str, folder: str) -> str | None:
    """Return the path of `uri` from `folder` on: "" for the folder itself, None if it is elsewhere.

    Follows links on a local disk.
    """
    fs, path = filesystem(uri)
    folder_fs, folder_path = filesystem(folder)
    if type(fs) is not type(folder_fs):
        return None
    if isinstance(fs, LocalFileSystem):
        path, folder_path = os.path.realpath(path), os.path.realpath(folder_path)
    if not f"{path}/".startswith(f"{folder_path.rstrip('/')}/"):
        return None
    return _below(path, folder_path)


def _below(path: str, folder: str) -> str:
    """Return `path` from `folder` on, without slashes at its ends; "" for the folder itself.

    Compares nothing: the caller knows that `path` begins with `folder`.
    """
    return path[len(folder) :].strip("/")


def exists(uri: str) -> bool:
    """Return whether a file or folder is there. Raises StorageError if that cannot be told."""
    fs, path = filesystem(uri)
    with storage_errors(uri):
        return bool(fs.exists(path))


def is_empty(folder: str) -> bool:
    """Return whether `folder` holds nothing or does not exist. Raises UsageError for a file."""
    fs, path = filesystem(folder)
    with storage_errors(folder):
        if fs.isfile(path):
            raise UsageError(f"{folder}: is a file; expected a folder")
        try:
            paths = fs.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):  # a step of the path may be a file
            return True
    return all(entry.rstrip("/") == path.rstrip("/") for entry in paths)


def check_writable(uri: str) -> None:
    """Raise UsageError if nothing can be written under `uri`.

    Called before hours of computing, not after them.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        _check_local_folder(uri, path)
    elif is_s3(uri):
        _check_bucket(uri, fs, path.split("/")[0])


def _check_local_folder(uri: str, path: str) -> None:
    """Raise UsageError unless the nearest folder that exists above `path` can be written.

    Folders are made when something is written, so `path` itself need not exist.
    """
    ancestor = path
    while not os.path.lexists(ancestor):
        ancestor = posixpath.dirname(ancestor)
    if not os.path.isdir(ancestor):
        raise UsageError(
            f"{uri}: {ancestor} is not a folder; expected a folder, or a place where one can be "
            "made"
        )
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise UsageError(f"{uri}: no permission to write in {ancestor}; choose another place")


def _check_bucket(uri: str, fs: AbstractFileSystem, bucket: str) -> None:
    """Raise UsageError for a bucket that does not exist.

    Raises StorageError if the store cannot be reached. Whether objects may be written shows only
    when the first is.
    """
    with storage_errors(uri):
        try:
            bucket_exists = bool(bucket) and bool(fs.call_s3("head_bucket", Bucket=bucket))
        except FileNotFoundError:
            bucket_exists = False
        except PermissionError:
            bucket_exists = True  # who may write objects need not be allowed to look at the bucket
    if not bucket_exists:
        raise UsageError(f"{uri}: no such bucket: {bucket!r}; expected an existing bucket")


class FileEntry(NamedTuple):
    """A file below a folder. name: its path from there."""

    name: str
    bytes: int
    modified: datetime


def find(folder: str) -> list[FileEntry]:
    """Return every file below `folder`, hidden ones included, by name; [] without the folder."""
    fs, path = filesystem(folder)
    with storage_errors(folder):
        if isinstance(fs, LocalFileSystem):
            return sorted(_find_local(path))
        try:
            infos = fs.find(path, detail=True)
        except FileNotFoundError:
            return []
    path = fs._strip_protocol(path)
    return sorted(
        FileEntry(_below(name, path), int(info["size"]), _modified(info))
        for name, info in infos.items()
        if info["type"] == "file" and _below(name, path)
    )


def _find_local(folder: str) -> Iterator[FileEntry]:
    """Yield every file below `folder`, without those behind links.

    Raises OSError for a folder that cannot be listed, which fsspec would leave out.
    """
    for path, _, names in os.walk(folder, onerror=_raise_unless_gone):
        for name in names:
            file = posixpath.join(path, name)
            with suppress(FileNotFoundError):
                status = os.lstat(file)
                if stat.S_ISREG(status.st_mode):
                    modified = datetime.fromtimestamp(status.st_mtime, UTC)
                    yield FileEntry(_below(file, folder), status.st_size, modified)


def _raise_unless_gone(error: OSError) -> None:
    """Raise what `os.walk` met, unless another run has removed the folder meanwhile.

    A folder that may not be listed must not look empty.
    """
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _modified(info: Mapping[str, Any]) -> datetime:
    """Return the time of the last change in UTC; 1970 where the file system tells none."""
    moment = next((info[name] for name in TIME_FIELDS if info.get(name)), 0)
    if isinstance(moment, datetime):
        return moment.astimezone(UTC)
    return datetime.fromtimestamp(float(moment), UTC)


def list_files(folder: str, suffix: str = "") -> list[str]:
    """Return the URIs of the files directly in `folder` whose name ends with `suffix`, sorted.

    Leaves out hidden files. Returns [] if there is no such folder.
    """
    fs, path = filesystem(folder)
    with storage_errors(folder):
        try:
            infos = fs.ls(path, detail=True)
        except FileNotFoundError:
            return []
    files = [info["name"].rstrip("/") for info in infos if info["type"] == "file"]
    names = [posixpath.basename(file) for file in files]
    return sorted(
        join(folder, name) for name in names if name.endswith(suffix) and not name.startswith(".")
    )


def size_of(uri: str) -> int:
    """Return the size of a file in bytes. Raises MissingFile."""
    fs, path = filesystem(uri)
    with storage_errors(uri):
        return int(fs.size(path))


def remove(uri: str) -> None:
    """Remove a file, or a folder and everything in it; do nothing if it does not exist."""
    fs, path = filesystem(uri)
    with storage_errors(uri), suppress(FileNotFoundError):
        if not glob.has_magic(path):
            fs.rm(path, recursive=True)
        elif isinstance(fs, LocalFileSystem) and os.path.isdir(path):
            shutil.rmtree(path)
        else:  # rm takes a name like a[1] for a pattern
            for file in fs.find(path):
                fs.rm_file(file)
