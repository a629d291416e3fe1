"""A finished result takes its place: a local folder whole, by renames; an object store's prefix
with manifest.json last.

A reader finds the old result until the new one has arrived in full. What a killed run leaves behind
is put right by the next run.
"""

from __future__ import annotations

import glob
import os
import posixpath
import shutil
import time
import uuid
from contextlib import suppress

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, StorageError
from deita_tasks.storage.failures import storage_errors

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"  # lies in an output while it changes in place; says which files are ours
DRAFTS = ".new-"
DAY = 86_400.0


def is_unfinished(uri: str) -> bool:
    """Whether a run was killed while it put its result under `uri`: a folder without a manifest,
    and ours to finish.
    """
    return storage.exists(storage.join(uri, UNFINISHED)) and not storage.exists(
        storage.join(uri, MANIFEST)
    )


def foreign_files(uri: str) -> list[str]:
    """The files under `uri` that the result there does not call its own: replacing it would lose
    them.
    """
    ours = _ours(uri)
    return [name for name in _names(uri) if name not in ours]


def _names(uri: str) -> list[str]:
    return [one.name for one in storage.find(uri) if not one.name.startswith((DRAFTS, UNFINISHED))]


def _ours(uri: str) -> set[str]:
    """The files that the manifest under `uri`, or a run that did not finish, calls its own; none
    that would lie outside.
    """
    names = {MANIFEST}
    for one in (MANIFEST, UNFINISHED):
        place = storage.join(uri, one)
        if storage.exists(place):
            with suppress(DamagedArtifact, TypeError, KeyError):
                names.update(
                    name for name in storage.read_json(place)["outputs"] if _is_inside(uri, name)
                )
    return names


def _is_inside(uri: str, name: object) -> bool:
    try:
        return isinstance(name, str) and bool(storage.join(uri, name))
    except StorageError:
        return False


def publish(folder: str, uri: str) -> None:
    """Put a finished local folder under `uri`, in the place of what is there; the folder is used
    up.

    On a local disk the whole result changes by renames. On an object store (and where a local
    folder cannot be renamed: a mount point) everything is staged first, then moved into place,
    manifest.json last: a result without it is not one.
    """
    fs, path = storage.filesystem(uri)
    with storage_errors(uri):
        recover(uri)
        if isinstance(fs, LocalFileSystem):
            path = os.path.realpath(path)
            os.makedirs(posixpath.dirname(path), exist_ok=True)
            if not os.path.ismount(path) and os.access(posixpath.dirname(path), os.W_OK):
                _swap(folder, path)
                return
        _move_in(fs, folder, uri, path)


def _swap(folder: str, path: str) -> None:
    draft, old = _beside(path, uuid.uuid4().hex, "new"), _beside(path, uuid.uuid4().hex, "old")
    try:
        shutil.move(folder, draft)  # from another disk, perhaps: a copy
        if os.path.lexists(path):
            os.rename(path, old)
        os.rename(draft, path)
    finally:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.rename(old, path)
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _beside(path: str, middle: str, end: str) -> str:
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name}.{middle}.{end}")


def recover(uri: str) -> None:
    """Put right what a killed run left: an old result that was moved away comes back, drafts of
    more than a day ago go.
    """
    fs, path = storage.filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        return
    path = os.path.realpath(path)
    moved_away = glob.glob(_beside(glob.escape(path), "*", "old"))
    if moved_away and not os.path.lexists(path):
        os.rename(moved_away.pop(), path)
    drafts = [
        draft
        for draft in glob.glob(_beside(glob.escape(path), "*", "new"))
        if time.time() - os.stat(draft).st_mtime > DAY
    ]
    for leftover in moved_away + drafts:
        shutil.rmtree(leftover, ignore_errors=True)


def _move_in(fs: AbstractFileSystem, folder: str, uri: str, path: str) -> None:
    files = sorted(
        os.path.relpath(posixpath.join(base, name), folder)
        for base, _, names in os.walk(folder)
        for name in names
    )
    ours = _ours(uri) | set(files)
    storage.write_json(storage.join(uri, UNFINISHED), {"outputs": sorted(ours)})
    draft = posixpath.join(path, DRAFTS + uuid.uuid4().hex)
    try:
        for name in files:
            _make_folder(fs, posixpath.join(draft, name))
            fs.put_file(posixpath.join(folder, name), posixpath.join(draft, name))
        storage.remove(storage.join(uri, MANIFEST))
        for name in sorted(files, key=lambda name: name == MANIFEST):
            _make_folder(fs, posixpath.join(path, name))
            fs.cp_file(posixpath.join(draft, name), posixpath.join(path, name))
    finally:
        storage.remove(posixpath.join(uri, posixpath.basename(draft)))
    for name in ours - set(files):
        storage.remove(storage.join(uri, name))
    for leftover in {
        one.name.split("/")[0] for one in storage.find(uri) if one.name.startswith(DRAFTS)
    }:
        storage.remove(storage.join(uri, leftover))
    storage.remove(storage.join(uri, UNFINISHED))
    shutil.rmtree(folder)


def _make_folder(fs: AbstractFileSystem, path: str) -> None:
    if isinstance(fs, LocalFileSystem):
        os.makedirs(posixpath.dirname(path), exist_ok=True)
