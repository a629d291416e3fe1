"""Detect the container of a file, and read its rows.

The first bytes tell the container. The file's name matters only if they leave it open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import IO, Literal

from deita_tasks.errors import InputError
from deita_tasks.loading import arrow, csv_text, json_array, json_lines, json_object, parquet
from deita_tasks.loading.base import Row, RowFormat

Container = Literal[
    "json_lines", "json_array", "json_object", "json_list_in_object", "csv", "parquet", "arrow"
]

HEAD_BYTES = 64 << 10  # of the content, from which the container is detected

READERS: dict[str, Callable[[Iterable[bytes]], Iterator[Row]]] = {
    "json_lines": json_lines.rows,
    "json_array": json_array.rows,
    "json_object": json_object.whole,
    "json_list_in_object": partial(json_object.rows_in_list, head_bytes=HEAD_BYTES),
    "csv": csv_text.rows,
}
# These need to move in the file.
BINARY_READERS: dict[str, Callable[[IO[bytes]], Iterator[Row]]] = {
    "parquet": parquet.rows,
    "arrow": arrow.rows,
}

CSV_NAME = re.compile(r"\.[ct]sv(\.\w+)?$", re.IGNORECASE)
BOM = b"\xef\xbb\xbf"
UNSUPPORTED = (
    (0, b"PK\x03\x04", "a zip archive (or a spreadsheet); unpack it, or save it as CSV"),
    (257, b"ustar", "a tar archive; unpack it and give the folder"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it"),
    (0, b"Rar!\x1a\x07", "a RAR archive; unpack it"),
    (0, b"\xd0\xcf\x11\xe0", "a spreadsheet or document of Microsoft Office; save it as CSV"),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4; decompress it"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the data; run `git lfs pull`"),
    (0, b"<!DOCTYPE html", "a web page, not the data; download it again"),
    (0, b"<html", "a web page, not the data; download it again"),
    (0, b"SQLite format 3", "a SQLite database; export its table"),
    (0, b"Obj\x01", "an Avro file; convert it"),
    (0, b"ORC", "an ORC file; convert it"),
    (0, b"FEA1", "a Feather file of version 1; convert it"),
    (0, b"\xff\xfe", "UTF-16 text; convert it to UTF-8"),
    (0, b"\xfe\xff", "UTF-16 text; convert it to UTF-8"),
)
# What pandas writes unless told to write records.
BY_COLUMN = re.compile(rb'\{\s*"(?:[^"\\]|\\.)*+"\s*:\s*\{\s*"0"\s*:')


def detect_container(head: bytes, uri: str, layouts: Iterable[RowFormat]) -> Container:
    """Return the container of the file `uri`, whose decompressed content begins with `head`.

    Content that begins like neither JSON nor Parquet is CSV if its first line names the columns of
    one of `layouts`, or if the file's name says so. Raises InputError for unsupported content.
    """
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((arrow.FILE_MAGIC, arrow.STREAM_MAGIC)):
        return "arrow"
    for place, magic, description in UNSUPPORTED:
        if head.startswith(magic, place):
            raise InputError(
                f"the content is {description}; expected JSON, JSON Lines or CSV in UTF-8, plain "
                "or compressed with gzip, bzip2, xz or zstd, or Parquet or Arrow"
            )
    text = head.removeprefix(BOM).lstrip()
    if text.startswith(b"["):
        return "json_lines" if _is_lines_of_lists(text) else "json_array"
    if text.startswith(b"{"):
        return _detect_object(text)
    if CSV_NAME.search(uri) or _names_columns(text, layouts):
        return "csv"
    return "json_lines"


def _detect_object(text: bytes) -> Container:
    """Return whether `text`, which begins with "{", is one object or an object in each line."""
    first, *others = [line for line in re.split(rb"[\r\n]+", text) if line.strip()][:3]
    if others and (_is_json(first) or _is_json(others[0].removeprefix(BOM))):
        return "json_lines"
    if BY_COLUMN.match(text):
        raise by_column()
    if json_object.find_list(text) is not None:
        return "json_list_in_object"
    is_spread = others and first.rstrip().endswith((b"{", b",", b"[", b":"))
    return "json_object" if is_spread else "json_lines"


def by_column() -> InputError:
    """Return the error for JSON that holds columns in place of rows."""
    return InputError(
        "one JSON object that holds a column of values under each name, not rows; expected a row "
        'in each line: in pandas, df.to_json(path, orient="records", lines=True)'
    )


def _names_columns(text: bytes, layouts: Iterable[RowFormat]) -> bool:
    """Return whether the first line of `text` is a CSV header with all columns of a layout.

    False for a line that is no header: the content is then read as JSON Lines.
    """
    first_line = text.partition(b"\n")[0]
    try:
        names = csv_text.parse_header(first_line)
    except InputError:
        return False
    return any(layout.matches(names) for layout in layouts)


def _is_lines_of_lists(text: bytes) -> bool:
    """Return whether `text`, which begins with "[", is JSON Lines whose first line is bad.

    That is so if its first line is a complete list, or if the second line is complete JSON: in an
    array, a line ends with a comma or an opening bracket before the next element begins.
    """
    lines = [line.strip() for line in re.split(rb"[\r\n]+", text)[:3]]
    if len(lines) < 2 or not lines[1]:
        return False
    first, second = lines[:2]
    if first.endswith((b",", b"[")):
        return False
    return _is_json(first) or _is_json(second)


def _is_json(line: bytes) -> bool:
    """Return whether a line is one complete JSON value; False for one nested too deep to parse."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def remove_bom(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield `blocks` without a UTF-8 byte order mark at the beginning."""
    stream = iter(blocks)
    start = b""
    for block in stream:
        start += block
        if len(start) >= len(BOM):
            break
    yield start.removeprefix(BOM)
    yield from stream
