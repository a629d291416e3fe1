"""The files that a URI names: a file, all below a folder, or those that match a glob."""

from __future__ import annotations

import glob
import os
import posixpath
from collections.abc import Iterator
from typing import Literal, NamedTuple

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from deita_tasks.errors import InputError
from deita_tasks.storage.failures import storage_errors
from deita_tasks.storage.filesystems import filesystem

HIDDEN = (".", "_")
HIDDEN_REASON = "hidden: its name begins with . or _"


class Expansion(NamedTuple):
    """What a URI names. files: sorted. passed_over: URI and reason, a hidden folder as a whole."""

    kind: Literal["file", "folder", "glob"]
    files: list[str]
    passed_over: list[tuple[str, str]]


def expand(uri: str) -> Expansion:
    """Return the files that `uri` names: a file, all files below a folder, or a glob.

    Follows links to folders, each folder once. Leaves out hidden files, and those in hidden
    folders, unless a glob names the dot. Raises InputError if there are none.
    """
    fs, path = filesystem(uri)
    with storage_errors(uri):
        if fs.isfile(path):
            expansion = Expansion("file", [path], [])
        elif fs.isdir(path):
            expansion = _expand_folder(fs, path)
            if not expansion.files:
                raise InputError(
                    f"{uri}: the folder holds no files; expected a pool of conversations"
                )
        elif glob.has_magic(path):
            expansion = Expansion("glob", _matching_files(fs, path), [])
            if not expansion.files:
                raise InputError(f"{uri}: no file matches this pattern")
        else:
            raise InputError(f"{uri}: no such file or folder")

    def name(path: str) -> str:
        """Return a path as a URI that opens the same file: with its scheme unless it is local."""
        if isinstance(fs, LocalFileSystem):
            return path
        return str(fs.unstrip_protocol(path))

    files = [name(path) for path in expansion.files]
    passed_over = [(name(path), reason) for path, reason in expansion.passed_over]
    return Expansion(expansion.kind, sorted(files), sorted(passed_over))


def _expand_folder(fs: AbstractFileSystem, folder: str) -> Expansion:
    """Return the files below a folder, links and hidden ones as `expand` has them."""
    expansion = Expansion("folder", [], [])
    if isinstance(fs, LocalFileSystem):
        _walk(folder, {}, expansion)
        return expansion
    hidden: dict[str, None] = {}
    for path in fs.find(folder):
        if path.endswith("/"):  # S3 consoles make objects named folder/
            continue
        steps = path[len(folder) :].strip("/").split("/")
        depth = next((i for i, step in enumerate(steps) if step.startswith(HIDDEN)), None)
        if depth is None:
            expansion.files.append(path)
        else:
            hidden_path = posixpath.join(folder, *steps[: depth + 1])
            hidden[hidden_path] = None
    expansion.passed_over.extend((path, HIDDEN_REASON) for path in hidden)
    return expansion


def _walk(folder: str, visited: dict[str, str], expansion: Expansion) -> None:
    """Collect the files below a local folder. visited: folders by real path, against loops."""
    folders = [folder]
    while folders:
        place = folders.pop()
        real = os.path.realpath(place)
        if real in visited:
            expansion.passed_over.append((place, f"the same folder as {visited[real]}"))
            continue
        visited[real] = place
        with os.scandir(place) as found:
            entries = sorted(found, key=lambda entry: entry.name, reverse=True)
        for entry in entries:
            path = posixpath.join(place, entry.name)
            if entry.name.startswith(HIDDEN):
                expansion.passed_over.append((path, HIDDEN_REASON))
            elif entry.is_dir():
                folders.append(path)
            elif entry.is_file():
                expansion.files.append(path)
            elif entry.is_symlink():
                expansion.passed_over.append((path, "a link to nothing"))
            else:
                expansion.passed_over.append((path, "not a regular file"))


def _matching_files(fs: AbstractFileSystem, pattern: str) -> list[str]:
    """Return the files that match a glob; hidden ones only if it names a dot itself."""
    escaped = "/".join(_escape_existing(fs, pattern))
    paths = fs.glob(escaped)
    files = [path for path in paths if fs.isfile(path)]
    if "/." in pattern:
        return files
    return [path for path in files if "/." not in path]


def _escape_existing(fs: AbstractFileSystem, pattern: str) -> Iterator[str]:
    """Yield the steps of `pattern`, escaped as far as they name a folder that exists."""
    folder = ""
    is_literal = True
    for step in pattern.split("/"):
        folder = f"{folder}/{step}" if folder or not step else step
        is_literal = is_literal and (not glob.has_magic(step) or fs.isdir(folder))
        yield glob.escape(step) if is_literal else step
