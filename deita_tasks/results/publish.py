"""Publish a finished result: it appears under its URI whole, or not at all.

A local folder changes by renames. Under an object store's prefix, manifest.json comes last. A
reader finds the old result until the new one is complete. The next run cleans up after a killed
one.
"""

from __future__ import annotations

import glob
import os
import posixpath
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, StorageError
from deita_tasks.manifest import MANIFEST, ResultManifest, digest_outputs
from deita_tasks.storage.failures import storage_errors

UNFINISHED = ".unfinished"  # in an output while it changes in place; lists our files
DRAFTS = ".new-"
LEFTOVERS = (DRAFTS, f".{UNFINISHED}.")  # of killed runs
DAY_SECONDS = 86_400.0

AnyManifest = TypeVar("AnyManifest", bound=ResultManifest)


def publish_result(
    uri: str, manifest: AnyManifest, write_files: Callable[[Path], None]
) -> AnyManifest:
    """Publish the files that `write_files` writes to a folder, with their manifest.json.

    Return the manifest with the digests of the files.
    """
    with storage.scratch_folder() as scratch:
        folder = Path(scratch) / "output"
        folder.mkdir()
        write_files(folder)
        manifest = manifest.model_copy(update={"outputs": digest_outputs(folder)})
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        publish(str(folder), uri)
    return manifest


def is_unfinished(uri: str) -> bool:
    """Return whether a killed run left an incomplete result under `uri`, for us to finish."""
    has_marker = storage.exists(storage.join(uri, UNFINISHED))
    return has_marker and not storage.exists(storage.join(uri, MANIFEST))


def foreign_files(uri: str) -> list[str]:
    """Return the files under `uri` that are not of the result there: replacing it loses them."""
    own = _own_files(uri)
    return [
        file.name
        for file in storage.find(uri)
        if file.name not in own and not file.name.startswith((*LEFTOVERS, UNFINISHED))
    ]


def _own_files(uri: str) -> set[str]:
    """Return the files that the manifest under `uri`, or an unfinished run, calls its own.

    Ignores names that lead out of `uri`.
    """
    names = {MANIFEST}
    for list_file in (MANIFEST, UNFINISHED):
        place = storage.join(uri, list_file)
        if storage.exists(place):
            with suppress(DamagedArtifact, TypeError, KeyError):
                outputs = storage.read_json(place)["outputs"]
                names.update(name for name in outputs if _is_inside(uri, name))
    return names


def _is_inside(uri: str, name: object) -> bool:
    """Return whether `name`, which a file lists, is a path within `uri`.

    What is listed is removed later, so a damaged file must not name anything outside.
    """
    try:
        return isinstance(name, str) and bool(storage.join(uri, name))
    except StorageError:
        return False


def publish(folder: str, uri: str) -> None:
    """Move a finished local folder to `uri`, in place of what is there.

    On a local disk the whole result changes by renames. On an object store, and where a local
    folder cannot be renamed (a mount point), the files are staged first and then moved into place,
    manifest.json last: a folder without it is not a result.
    """
    fs, path = storage.filesystem(uri)
    with storage_errors(uri):
        recover(uri)
        if isinstance(fs, LocalFileSystem):
            path = os.path.realpath(path)
            parent = posixpath.dirname(path)
            os.makedirs(parent, exist_ok=True)
            if not os.path.ismount(path) and os.access(parent, os.W_OK):
                _replace_folder(folder, path)
                return
        _replace_files(fs, folder, uri, path)


def _replace_folder(folder: str, path: str) -> None:
    """Put `folder` in the place of the local folder `path`, by renames on one disk.

    The old one is moved back if the second rename fails; `recover` does so after a kill.
    """
    new = _sibling(path, uuid.uuid4().hex, "new")
    old = _sibling(path, uuid.uuid4().hex, "old")
    try:
        shutil.move(folder, new)  # a copy, if it is on another disk
        if os.path.lexists(path):
            os.rename(path, old)
        os.rename(new, path)
    finally:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.rename(old, path)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _sibling(path: str, middle: str, suffix: str) -> str:
    """Return the path of a hidden folder beside `path`, which is on the same disk."""
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name}.{middle}.{suffix}")


def recover(uri: str) -> None:
    """Clean up after a killed run: restore a result it moved away, remove drafts over a day old."""
    fs, path = storage.filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        return
    path = os.path.realpath(path)
    moved_away = glob.glob(_sibling(glob.escape(path), "*", "old"))
    if moved_away and not os.path.lexists(path):
        os.rename(moved_away.pop(), path)
    drafts = glob.glob(_sibling(glob.escape(path), "*", "new"))
    old_drafts = [draft for draft in drafts if time.time() - os.stat(draft).st_mtime > DAY_SECONDS]
    for leftover in moved_away + old_drafts:
        shutil.rmtree(leftover, ignore_errors=True)


def _replace_files(fs: AbstractFileSystem, folder: str, uri: str, path: str) -> None:
    """Replace the files under `uri` one by one, where a rename of the whole is not possible.

    The marker UNFINISHED stands from first to last and lists our files. The manifest is removed
    first and comes last, so nobody reads a mixture. Files of others stay.
    """
    files = _relative_files(folder)
    own = _own_files(uri) | set(files)
    storage.write_json(storage.join(uri, UNFINISHED), {"outputs": sorted(own)})
    draft = posixpath.join(path, DRAFTS + uuid.uuid4().hex)
    try:
        for name in files:
            _make_parent(fs, posixpath.join(draft, name))
            fs.put_file(posixpath.join(folder, name), posixpath.join(draft, name))
        storage.remove(storage.join(uri, MANIFEST))
        for name in sorted(files, key=lambda name: name == MANIFEST):
            _make_parent(fs, posixpath.join(path, name))
            fs.cp_file(posixpath.join(draft, name), posixpath.join(path, name))
    finally:
        storage.remove(posixpath.join(uri, posixpath.basename(draft)))
    for name in own - set(files):
        storage.remove(storage.join(uri, name))
    names = {file.name.split("/")[0] for file in storage.find(uri)}
    for leftover in [name for name in names if name.startswith(LEFTOVERS)]:
        storage.remove(storage.join(uri, leftover))
    storage.remove(storage.join(uri, UNFINISHED))
    shutil.rmtree(folder)


def _relative_files(folder: str) -> list[str]:
    """Return the paths of all files below `folder`, relative to it, sorted."""
    return sorted(
        os.path.relpath(posixpath.join(base, name), folder)
        for base, _, names in os.walk(folder)
        for name in names
    )


def _make_parent(fs: AbstractFileSystem, path: str) -> None:
    """Create the folder of a local file; object stores have no folders."""
    if isinstance(fs, LocalFileSystem):
        os.makedirs(posixpath.dirname(path), exist_ok=True)
