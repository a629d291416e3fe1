"""Where files lie: URIs, the file systems behind them, and what is there."""

from __future__ import annotations

import glob
import os
import posixpath
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from deita_tasks.errors import InputError, StorageError, UsageError
from deita_tasks.storage.failures import storage_errors

# with pauses of up to 1, 2, 4 … 20 s at random: some 35 s of a store that is away or overloaded
S3_ATTEMPTS = 8


def options_for(uri: str) -> dict[str, Any]:
    """What a file system is made with, beside what the user's environment says; never a credential."""
    if not uri.startswith(("s3://", "s3a://")):
        return {}
    retries = {
        "mode": os.environ.get(
            "AWS_RETRY_MODE", "standard"
        ),  # standard: exponential backoff with jitter
        "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", S3_ATTEMPTS)),
    }
    # s3fs remembers listings: without this, exists() is False for a key that another process has
    # just written.
    return {"use_listings_cache": False, "config_kwargs": {"retries": retries}}


_s3: dict[tuple[object, ...], AbstractFileSystem] = {}


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """The file system behind `uri` and the path on it. Raises UsageError for a scheme that nobody
    serves.
    """
    try:
        if not uri.startswith(("s3://", "s3a://")):
            fs, path = fsspec.url_to_fs(uri)
            return fs, path
        # fsspec would make one for every thread, each with connections of its own, and keep it
        # whatever the environment says later.
        key = (
            os.getpid(),
            *sorted(item for item in os.environ.items() if item[0].startswith("AWS_")),
        )
        if key not in _s3:
            _s3[key] = fsspec.filesystem("s3", skip_instance_cache=True, **options_for(uri))
        return _s3[key], _s3[key]._strip_protocol(uri)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{uri!r}: {error}; expected a path, s3://, hf:// or memory://") from error


def is_local(uri: str) -> bool:
    """Whether `uri` names a file of this machine."""
    return isinstance(filesystem(uri)[0], LocalFileSystem)


def absolute(uri: str) -> str:
    """`uri`, which another process may read: a local path from the root on."""
    fs, path = filesystem(uri)
    return path if isinstance(fs, LocalFileSystem) else uri


def join(base: str, *parts: str) -> str:
    """`base` with `parts` appended. No part may be absolute or climb out of `base`: a name read
    from data stays inside.
    """
    for part in parts:
        if (
            not part
            or part.startswith("/")
            or not {".", ".."}.isdisjoint(part.split("/"))
            or "\\" in part
            or "\0" in part
        ):
            raise StorageError(f"{part!r}: expected a name inside {base}, not a path out of it")
    return posixpath.join(base, *parts)


def path_in(uri: str, folder: str) -> str | None:
    """The path of `uri` from `folder` on, "" for the folder itself; None where it lies elsewhere.
    Links are not followed.
    """
    (fs, path), (other, top) = filesystem(uri), filesystem(folder)
    inside = type(fs) is type(other) and f"{path}/".startswith(f"{top.rstrip('/')}/")
    return _below(path, top) if inside else None


def expand(uri: str) -> list[str]:
    """The files that `uri` names, sorted: the file itself, all files below a folder, or what a glob
    matches.

    Hidden files (and those in hidden folders) are left out, unless a glob names the dot. Raises
    InputError where nothing is there.
    """
    fs, path = filesystem(uri)
    with storage_errors(uri):
        if fs.isfile(path):
            found = [path]
        elif fs.isdir(path):
            below = [
                one for one in fs.find(path) if not one.endswith("/")
            ]  # S3 consoles make objects named folder/
            found = [
                one
                for one in below
                if not any(step.startswith((".", "_")) for step in _below(one, path).split("/"))
            ]
            if not found:
                raise InputError(
                    f"{uri}: the folder holds no files; expected a pool of conversations"
                )
        elif glob.has_magic(path):
            hidden = "/." in path  # asked for by name
            found = [one for one in fs.glob(path) if fs.isfile(one) and (hidden or "/." not in one)]
            if not found:
                raise InputError(f"{uri}: no file matches this pattern")
        else:
            raise InputError(f"{uri}: no such file or folder")
    return sorted(_with_scheme(fs, one) for one in found)


def _below(path: str, folder: str) -> str:
    return path[len(folder) :].strip("/")


def _with_scheme(fs: AbstractFileSystem, path: str) -> str:
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(uri)
    with storage_errors(uri):
        return bool(fs.exists(path))


def is_empty(folder: str) -> bool:
    """Whether there is nothing under `folder`, or no such folder. Raises UsageError where it is a
    file.
    """
    fs, path = filesystem(folder)
    with storage_errors(folder):
        if fs.isfile(path):
            raise UsageError(f"{folder}: is a file; expected a folder")
        try:
            return not [
                one for one in fs.ls(path, detail=False) if one.rstrip("/") != path.rstrip("/")
            ]
        except FileNotFoundError:
            return True


def check_place(uri: str) -> None:
    """Raises UsageError where nothing can be written under `uri`: before hours of computing, not
    after them.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        there = path
        while not os.path.lexists(there):
            there = posixpath.dirname(there)
        if not os.path.isdir(there):
            raise UsageError(
                f"{uri}: {there} is not a folder; expected a folder, or a place where "
                "one can be made"
            )
        if not os.access(there, os.W_OK | os.X_OK):
            raise UsageError(f"{uri}: no permission to write in {there}; choose another place")
    elif uri.startswith(("s3://", "s3a://")):
        bucket = path.split("/")[0]
        with storage_errors(uri):
            try:
                is_there = bool(bucket) and bool(fs.call_s3("head_bucket", Bucket=bucket))
            except FileNotFoundError:
                is_there = False
            except PermissionError:
                is_there = True  # who may write objects need not be allowed to look at the bucket
        if not is_there:
            raise UsageError(f"{uri}: no such bucket: {bucket!r}; expected one that is there")


class Found(NamedTuple):
    """A file below a folder: `name` is its path from there."""

    name: str
    bytes: int
    modified: datetime


def find(folder: str) -> list[Found]:
    """Every file below `folder`, hidden ones too, by name; [] where there is no such folder."""
    fs, path = filesystem(folder)
    with storage_errors(folder):
        try:
            entries = fs.find(path, detail=True)
        except FileNotFoundError:
            return []
    path = fs._strip_protocol(path)
    return sorted(
        Found(_below(name, path), int(info["size"]), _modified(info))
        for name, info in entries.items()
        if info["type"] == "file" and _below(name, path)
    )


def _modified(info: Mapping[str, Any]) -> datetime:
    moment = (
        info.get("LastModified")
        or info.get("mtime")
        or info.get("last_modified")
        or info.get("created")
        or 0
    )
    return (
        moment.astimezone(UTC)
        if isinstance(moment, datetime)
        else datetime.fromtimestamp(float(moment), UTC)
    )


def list_files(folder: str, suffix: str = "") -> list[str]:
    """URIs of the files directly in `folder` whose name ends with `suffix`, sorted; [] where there
    is no such folder.
    """
    fs, path = filesystem(folder)
    with storage_errors(folder):
        try:
            entries = fs.ls(path, detail=True)
        except FileNotFoundError:
            return []
    names = [
        posixpath.basename(entry["name"].rstrip("/"))
        for entry in entries
        if entry["type"] == "file"
    ]
    return sorted(
        join(folder, name) for name in names if name.endswith(suffix) and not name.startswith(".")
    )


def size_of(uri: str) -> int:
    """The file's bytes. Raises MissingFile."""
    fs, path = filesystem(uri)
    with storage_errors(uri):
        return int(fs.size(path))


def remove(uri: str) -> None:
    """Remove a file or a folder with all in it; nothing happens where there is none."""
    fs, path = filesystem(uri)
    with storage_errors(uri), suppress(FileNotFoundError):
        if not glob.has_magic(path):
            fs.rm(path, recursive=True)
        elif isinstance(fs, LocalFileSystem) and os.path.isdir(path):
            shutil.rmtree(path)
        else:  # rm takes a name like a[1] for a pattern
            for one in fs.find(path):
                fs.rm_file(one)


class Upload(NamedTuple):
    """An upload to a bucket that was begun and neither finished nor given up: its pieces take room
    that no listing shows.
    """

    key: str
    id: str
    begun: datetime


def unfinished_uploads(folder: str) -> list[Upload]:
    """The unfinished uploads below `folder`, which killed runs leave in S3; [] elsewhere."""
    if not folder.startswith(("s3://", "s3a://")):
        return []
    fs, path = filesystem(folder)
    bucket, _, prefix = path.partition("/")
    asked: dict[str, Any] = {"Bucket": bucket, "Prefix": f"{prefix.rstrip('/')}/" if prefix else ""}
    found: list[Upload] = []
    with storage_errors(folder):
        while True:
            page = fs.call_s3("list_multipart_uploads", **asked)
            found += [
                Upload(one["Key"], one["UploadId"], one["Initiated"].astimezone(UTC))
                for one in page.get("Uploads", [])
            ]
            if not page.get("IsTruncated"):
                return found
            asked |= {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }


def give_up(folder: str, upload: Upload) -> None:
    """Let an unfinished upload below `folder` go, with its pieces."""
    fs, path = filesystem(folder)
    with storage_errors(folder), suppress(FileNotFoundError):
        fs.call_s3(
            "abort_multipart_upload",
            Bucket=path.partition("/")[0],
            Key=upload.key,
            UploadId=upload.id,
        )
