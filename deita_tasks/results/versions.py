"""Selections of a pool that grows, each a version of its own.

    <output>/versions/<time>-<digest>/    a result as `deita select` writes it, whole, never changed afterwards
             latest                       the newest: a link to its folder on a local disk, elsewhere an object that holds its name

`latest` moves last, so whoever follows it finds a whole result. The digest names what the selection
depends on: where it is that of the latest version, nothing is new.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from fsspec.implementations.local import LocalFileSystem

from deita_tasks import storage
from deita_tasks.errors import OutputExists
from deita_tasks.storage.failures import storage_errors

FOLDER, LATEST = "versions", "latest"
DAY = timedelta(days=1)
NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{16}")


def name_of(digest: str, now: datetime | None = None) -> str:
    """A name for a version made `now`; names sort by time."""
    return f"{(now or datetime.now(UTC)).astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest[:16]}"


def is_of(name: str | None, digest: str) -> bool:
    """Whether the version `name` is of the selection with this digest."""
    return name is not None and name.endswith(f"-{digest[:16]}")


def uri_of(output: str, name: str) -> str:
    """Where the version `name` lies."""
    return storage.join(output, FOLDER, name)


def listed(output: str) -> list[str]:
    """The names of all whole versions, the oldest first."""
    return _whole(storage.find(storage.join(output, FOLDER)))


def _whole(files: Iterable[storage.Found]) -> list[str]:
    """Those among the versions' files; one without its manifest was never finished."""
    names = {file.name.split("/")[0] for file in files if file.name.endswith("/manifest.json")}
    return sorted(name for name in names if NAME.fullmatch(name))


def latest(output: str) -> str | None:
    """The name of the version that `latest` points to; None where there is none, or it is gone."""
    fs, path = storage.filesystem(storage.join(output, LATEST))
    with storage_errors(output):
        if isinstance(fs, LocalFileSystem) and os.path.islink(path):
            name = os.path.basename(os.readlink(path))
        elif fs.isfile(path):
            name = fs.cat_file(path).decode(errors="replace").strip()
        else:
            return None
    return (
        name
        if NAME.fullmatch(name)
        and storage.exists(storage.join(uri_of(output, name), "manifest.json"))
        else None
    )


def unpointed(output: str, digest: str, pointed: str | None) -> str | None:
    """A whole version of this selection, newer than the one that is `pointed` to: left by a run
    that ended before it moved `latest`.
    """
    return next(
        (name for name in listed(output)[::-1] if is_of(name, digest) and name > (pointed or "")),
        None,
    )


def move_latest(output: str, name: str) -> None:
    """Point `latest` to the version `name`, in one step."""
    fs, path = storage.filesystem(storage.join(output, LATEST))
    if isinstance(fs, LocalFileSystem):
        draft = f"{path}.{uuid.uuid4().hex}"
        with storage_errors(output):
            try:
                os.symlink(os.path.join(FOLDER, name), draft, target_is_directory=True)
                os.replace(draft, path)
                return
            except (
                OSError,
                NotImplementedError,
            ):  # a disk without links: an object of that name serves there too
                if os.path.lexists(draft):
                    os.unlink(draft)
    storage.write_bytes(storage.join(output, LATEST), f"{name}\n".encode())


def forget_old(output: str, keep: int, now: datetime | None = None) -> list[str]:
    """Remove all versions but the `keep` newest, and never the latest; returns what went. What
    killed runs left goes after a day.
    """
    pointed, files = latest(output), storage.find(storage.join(output, FOLDER))
    whole = _whole(files)
    gone = [name for name in whole[:-keep] if name != pointed]
    for name in gone:
        storage.remove(
            storage.join(uri_of(output, name), "manifest.json")
        )  # from here on it is not one
        storage.remove(uri_of(output, name))
    for name in _leftovers(files, whole, now or datetime.now(UTC)):
        storage.remove(uri_of(output, name))
    return gone


def _leftovers(files: Iterable[storage.Found], whole: Sequence[str], now: datetime) -> list[str]:
    """Entries beside the whole versions in which nothing has been written for a day."""
    written: dict[str, datetime] = {}
    for file in files:
        name = file.name.split("/")[0]
        written[name] = max(file.modified, written.get(name, file.modified))
    return [name for name, moment in written.items() if name not in whole and now - moment > DAY]


def check_output(output: str, needed: Sequence[str] = ()) -> None:
    """Raises OutputExists where `output` holds something else than versions, or one of the `needed`
    URIs.
    """
    storage.check_place(output)
    for uri in needed:
        if storage.path_in(uri, storage.join(output, FOLDER)) is not None:
            raise OutputExists(
                f"{output}: its versions hold {uri}, which the run needs; choose a folder "
                "apart from input and store"
            )
    if not storage.is_empty(output) and not storage.exists(storage.join(output, FOLDER)):
        raise OutputExists(
            f"{output}: not empty, and no versions of ours in it; expected a new folder, or "
            "one of `deita reselect`"
        )
