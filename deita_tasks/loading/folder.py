"""Which files of a folder are data. Everything else is passed over, with its reason."""

from __future__ import annotations

import json
import logging
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from deita_tasks import storage
from deita_tasks.errors import InputError
from deita_tasks.loading.base import RowFormat
from deita_tasks.loading.compression import detect_compression
from deita_tasks.loading.containers import HEAD_BYTES, detect_container
from deita_tasks.loading.hub import hub_files
from deita_tasks.loading.reading import open_file, read_head
from deita_tasks.manifest import PassedOver

log = logging.getLogger(__name__)

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSION_SUFFIXES = ("", ".gz", ".bz2", ".xz", ".zst", ".zstd")
FILE_SUFFIXES = tuple(data + packed for data in SUFFIXES for packed in COMPRESSION_SUFFIXES)
ARCHIVES = re.compile(r"\.(zip|tar|tgz|tbz2|txz|7z|rar|xlsx?)$|\.tar\.\w+$", re.IGNORECASE)
# Never data, whatever they begin with; no need to open them.
OTHER_SUFFIXES = re.compile(
    r"\.(md|rst|html?|pdf|py|ipynb|sh|ya?ml|toml|cfg|ini|lock|css|js|png|jpe?g|gif|webp|svg|mp[34]|"
    r"wav|bin|pt|pth|safetensors|npy|npz|index|idx|sha256|md5|license)$",
    re.IGNORECASE,
)
OTHER_NAMES = re.compile(r"(readme|license|licence|notice|changelog|makefile)\b.*", re.IGNORECASE)

ARRAY_OF_OBJECTS = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{")
OBJECT_START = re.compile(rb'\{\s*"')

# Files that other programs and our own output put beside the data, by name, with names that only
# they hold: in the object, or in one of its members.
SIDECAR_FIELDS = {
    "dataset_info.json": {"features", "splits", "builder_name", "file_name", "hf_hub_url"},
    "dataset_infos.json": {"features", "splits", "builder_name"},
    "dataset_dict.json": {"splits"},
    "state.json": {"_data_files", "_fingerprint"},
    "manifest.json": {"outputs", "inputs", "parameters"},
    "changes.json": {"before", "selection", "pool"},
}
SIDECAR_COLUMNS = {
    "decisions.parquet": {"id", "decision", "source_uri", "source_row"},
    "excluded.parquet": {"id", "decision", "reason", "evaluation_text"},
    "changes.parquet": {"id", "change", "decision_before"},
}
MAX_SIDECAR_BYTES = 16 << 20
MAX_LOGGED = 20


class PoolFiles(NamedTuple):
    """The files of a pool, in order, and what was passed over."""

    files: list[str]
    passed_over: list[PassedOver]


def find_pool(uri: str | Sequence[str], layouts: Sequence[RowFormat] = ()) -> PoolFiles:
    """Return the files that `uri` names (see storage.expand), each once, in order.

    In a folder, files count that have the suffix of a data format, or whose content begins like
    data. In a folder and in a glob, known sidecars are passed over. A file that is named itself is
    always read. Raises InputError if there is none.
    """
    patterns = [uri] if isinstance(uri, str) else uri
    if not patterns:
        raise InputError("no input was given; expected a file, a folder, a glob or a URI")
    files: dict[str, None] = {}
    passed_over: dict[PassedOver, None] = {}
    for pattern in patterns:
        pool = _expand(pattern, layouts)
        files.update(dict.fromkeys(pool.files))
        passed_over.update(dict.fromkeys(pool.passed_over))
    unread = [file for file in passed_over if file.uri not in files]
    return PoolFiles(list(files), unread)


def log_passed_over(passed_over: Sequence[PassedOver], logger: Any = log) -> None:
    """Name what was passed over, a line each, at most MAX_LOGGED."""
    for file in passed_over[:MAX_LOGGED]:
        logger.info("passed over %s: %s", file.uri, file.reason)
    if len(passed_over) > MAX_LOGGED:
        hidden = len(passed_over) - MAX_LOGGED
        logger.info("passed over %s more; manifest.json names them all", f"{hidden:,}")


def _expand(pattern: str, layouts: Sequence[RowFormat]) -> PoolFiles:
    """Return the files that a URI names. Raises InputError if none of them is data."""
    hub = hub_files(pattern)
    if hub is not None:
        return PoolFiles(*hub)
    expansion = storage.expand(pattern)
    passed_over = [PassedOver(uri=uri, reason=reason) for uri, reason in expansion.passed_over]
    if expansion.kind == "file":
        return PoolFiles(expansion.files, passed_over)
    saved = _saved_files(expansion.files)
    files = []
    for file in expansion.files:
        reason = _sidecar_reason(file) or _unlisted_reason(file, saved)
        if reason is None and expansion.kind == "folder":
            reason = _foreign_reason(file, layouts)
        if reason is None:
            files.append(file)
        else:
            passed_over.append(PassedOver(uri=file, reason=reason))
    if not files:
        example = ""
        if passed_over:
            first = passed_over[0]
            example = f" (for example {first.uri}: {first.reason})"
        suffixes = ", ".join(SUFFIXES)
        raise InputError(
            f"{pattern}: no file here is data{example}; expected files that "
            f"end with {suffixes}, or that hold JSON, CSV, Parquet or Arrow"
        )
    return PoolFiles(files, passed_over)


def _saved_files(files: Sequence[str]) -> dict[str, set[str]]:
    """Return the data files by folder that datasets.save_to_disk has written."""
    saved = {}
    for file in files:
        folder, name = posixpath.split(file)
        if name != "state.json":
            continue
        state = _read_object(file) or {}
        entries = state.get("_data_files")
        if isinstance(entries, list):
            names = [entry.get("filename") for entry in entries if isinstance(entry, dict)]
            saved[folder] = {name for name in names if isinstance(name, str)}
    return saved


def _unlisted_reason(file: str, saved: dict[str, set[str]]) -> str | None:
    """Return why an Arrow file beside a state.json is not data; None if it is listed there."""
    folder, name = posixpath.split(file)
    if folder not in saved or not name.endswith(".arrow"):
        return None
    if name in saved[folder]:
        return None
    return "not among the data files of state.json; a cache of datasets"


def _sidecar_reason(file: str) -> str | None:
    """Return why `file` is known not to be data; None for a name that says nothing."""
    name = posixpath.basename(file).lower()
    if OTHER_NAMES.fullmatch(name) and not name.endswith(FILE_SUFFIXES):
        return "its name is that of a text about the data"
    if name in SIDECAR_FIELDS:
        fields = _read_object(file)
        if fields is not None and _has_any(fields, SIDECAR_FIELDS[name]):
            return f"a {name} that describes data"
    if name in SIDECAR_COLUMNS and SIDECAR_COLUMNS[name] <= _columns(file):
        return "a table of an earlier selection, not the selection"
    return None


def _foreign_reason(file: str, layouts: Sequence[RowFormat]) -> str | None:
    """Return why a file of a folder is not data, by its name or by how it begins."""
    name = posixpath.basename(file).lower()
    if name.endswith(FILE_SUFFIXES):
        return None
    if OTHER_SUFFIXES.search(name):
        return f"files that end with {posixpath.splitext(name)[1]} are not data"
    if ARCHIVES.search(name):
        return "an archive or spreadsheet; unpack it to read it"
    try:
        with open_file(file) as handle:
            compression = detect_compression(handle.read(HEAD_BYTES))
            handle.seek(0)
            head = read_head(handle, compression)
        container = detect_container(head, file, layouts)
    except InputError as error:
        return str(error).removeprefix(f"{file}: ")
    is_data = True
    if container == "json_array":
        is_data = ARRAY_OF_OBJECTS.match(head) is not None
    elif container == "json_lines":
        is_data = _has_object(head)
    return None if is_data else "its content begins like no data format"


def _has_object(head: bytes) -> bool:
    """Return whether a line is an object, or an object begins that does not end in `head`."""
    lines = head.splitlines()
    if any(_is_object(line) for line in lines):
        return True
    is_cut = len(lines) == 1 and len(head) == HEAD_BYTES
    return is_cut and OBJECT_START.match(head) is not None


def _is_object(line: bytes) -> bool:
    """Return whether a line is a whole JSON object."""
    if not line.lstrip().startswith(b"{"):
        return False
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _read_object(file: str) -> dict[str, Any] | None:
    """Return the JSON object that a small file holds; None for anything else."""
    if storage.size_of(file) > MAX_SIDECAR_BYTES:
        return None
    with open_file(file) as handle:
        content = handle.read()
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _has_any(fields: dict[str, Any], names: set[str]) -> bool:
    """Return whether an object, or an object among its values, has one of these names."""
    members = [value for value in fields.values() if isinstance(value, dict)]
    return any(not names.isdisjoint(each) for each in (fields, *members))


def _columns(file: str) -> set[str]:
    """Return the names of a Parquet file's columns; none if it is not readable."""
    with open_file(file) as handle:
        return set(_read_names(handle))


def _read_names(handle: IO[bytes]) -> Iterator[str]:
    """Yield the names of the columns; none for what is not Parquet."""
    try:
        yield from pq.read_schema(handle).names
    except (pa.ArrowException, OSError):
        return
