"""Versions: the selections of a growing pool, side by side, and `latest`.

    <output>/
        versions/<time>-<digest>/   a result as `deita select` writes it, complete and final
        latest                      the newest version: on a local disk a link to its folder,
                                    elsewhere an object that holds its name
        README.md                   the newest version's card, for datasets.load_dataset(<output>)

`latest` moves last, so whoever follows it finds a complete result. The digest names everything
that the selection depends on: if the latest version has the same digest, nothing is new.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from fsspec.implementations.local import LocalFileSystem

from deita_tasks import storage
from deita_tasks.errors import OutputExists, StorageError
from deita_tasks.manifest import MANIFEST
from deita_tasks.storage.failures import storage_errors

FOLDER = "versions"
LATEST = "latest"
MAX_NAME_BYTES = 100  # read of `latest`, which may be a file of somebody else
DAY = timedelta(days=1)
NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{16}")


def new_name(digest: str, now: datetime | None = None) -> str:
    """Return a name for a version made `now`: UTC to the second, and 16 digits of the digest.

    Names sort by time. now: with its time zone; None for this moment.
    """
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{digest[:16]}"


def has_digest(name: str | None, digest: str) -> bool:
    """Return whether the version `name` is of the selection with this digest."""
    return name is not None and name.endswith(f"-{digest[:16]}")


def version_uri(output: str, name: str) -> str:
    """Return where the version `name` lies."""
    return storage.join(output, FOLDER, name)


def list_versions(output: str) -> list[str]:
    """Return the names of all complete versions, the oldest first."""
    return _complete(storage.find(storage.join(output, FOLDER)))


def list_entries(output: str) -> list[str]:
    """Return the names of all versions, complete or not, the oldest first."""
    files = storage.find(storage.join(output, FOLDER))
    names = {file.name.split("/")[0] for file in files}
    return sorted(name for name in names if NAME.fullmatch(name))


def _complete(files: Iterable[storage.FileEntry]) -> list[str]:
    """Return the versions among `files` that have a manifest; the others are unfinished."""
    names = {file.name.split("/")[0] for file in files if file.name.endswith(f"/{MANIFEST}")}
    return sorted(name for name in names if NAME.fullmatch(name))


def latest(output: str) -> str | None:
    """Return the version that `latest` points to; None if there is none, or it is gone."""
    name = _read_latest(output)
    if name is None or not NAME.fullmatch(name):
        return None
    return name if storage.exists(storage.join(version_uri(output, name), MANIFEST)) else None


def _read_latest(output: str) -> str | None:
    """Return the name that `latest` holds, whatever it is; None if there is none.

    Raises OutputExists for a folder.
    """
    place = storage.join(output, LATEST)
    fs, path = storage.filesystem(place)
    with storage_errors(place):
        if isinstance(fs, LocalFileSystem) and os.path.islink(path):
            return os.path.basename(os.readlink(path))
        if fs.isdir(path):
            raise OutputExists(f"{place}: is a folder, and no link of ours: move it away")
        if not fs.isfile(path):
            return None
    with storage.open_read(place) as handle:
        return handle.read(MAX_NAME_BYTES).decode(errors="replace").strip()


def result_uri(uri: str) -> str:
    """Return the folder of the latest version if `uri` is an output of `reselect`, else `uri`."""
    try:
        if storage.exists(storage.join(uri, MANIFEST)):
            return uri
        name = latest(uri)
    except StorageError:  # a glob, a data set of the hub
        return uri
    return uri if name is None else version_uri(uri, name)


def unpublished(output: str, digest: str, current: str | None) -> str | None:
    """Return a complete version of this selection that is newer than `current`, the latest.

    A run that was killed before it moved `latest` leaves one.
    """
    for name in reversed(list_versions(output)):
        if has_digest(name, digest) and name > (current or ""):
            return name
    return None


def move_latest(output: str, name: str) -> None:
    """Point `latest` to the version `name`, atomically: a link on a local disk, else a file."""
    fs, path = storage.filesystem(storage.join(output, LATEST))
    if isinstance(fs, LocalFileSystem):
        draft = storage.draft_path(path)
        with storage_errors(output):
            try:
                os.symlink(os.path.join(FOLDER, name), draft, target_is_directory=True)
                os.replace(draft, path)
                return
            except (OSError, NotImplementedError):  # a disk without links: fall back to a file
                if os.path.lexists(draft):
                    os.unlink(draft)
    storage.write_bytes(storage.join(output, LATEST), f"{name}\n".encode())


def _remove_drafts(output: str, now: datetime) -> None:
    """Remove the links that killed runs have not renamed to `latest`, after a day."""
    fs, path = storage.filesystem(output)
    with storage_errors(output):
        for name in os.listdir(path) if isinstance(fs, LocalFileSystem) else ():
            draft = os.path.join(path, name)
            if storage.draft_target(name) == LATEST and _age(draft, now) > DAY:
                os.unlink(draft)


def _age(path: str, now: datetime) -> timedelta:
    """Return how long ago a file or link was last changed; of a link itself, not its target."""
    return now - datetime.fromtimestamp(os.lstat(path).st_mtime, UTC)


def remove_old(output: str, keep: int, now: datetime | None = None) -> list[str]:
    """Remove all versions but the `keep` newest and the latest; return their names.

    Also removes what killed runs left, after a day.
    """
    current = latest(output)
    files = storage.find(storage.join(output, FOLDER))
    complete = _complete(files)
    old = [name for name in complete[:-keep] if name != current]
    for name in old:
        storage.remove(storage.join(version_uri(output, name), MANIFEST))  # incomplete from here
        storage.remove(version_uri(output, name))
    now = now or datetime.now(UTC)
    for name in _leftovers(files, complete, now):
        storage.remove(version_uri(output, name))
    _remove_drafts(output, now)
    return old


def _leftovers(
    files: Iterable[storage.FileEntry], complete: Sequence[str], now: datetime
) -> list[str]:
    """Return the entries besides the complete versions that nobody has written to for a day."""
    modified: dict[str, datetime] = {}
    for file in files:
        name = file.name.split("/")[0]
        modified[name] = max(file.modified, modified.get(name, file.modified))
    return [name for name in modified if name not in complete and now - modified[name] > DAY]


def check_output(output: str, needed: Sequence[str] = ()) -> None:
    """Raise OutputExists if `output` holds other files than versions, or one of `needed` URIs."""
    storage.check_writable(output)
    folder = storage.join(output, FOLDER)
    for uri in needed:
        if storage.path_in(uri, folder) is not None:
            raise OutputExists(
                f"{output}: its versions hold {uri}, which the run needs; choose a folder apart "
                "from input and store"
            )
    if not storage.is_empty(output) and not storage.exists(folder):
        raise OutputExists(
            f"{output}: not empty, and without versions of ours; expected a new folder, or one of "
            "`deita reselect`"
        )
    name = _read_latest(output)
    if name is not None and not NAME.fullmatch(name):
        raise OutputExists(
            f"{storage.join(output, LATEST)}: holds {name!r}, not the name of a version: move it "
            "away"
        )
