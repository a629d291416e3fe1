"""Detect the container of a file, and read its rows.

The first bytes tell the container. The file's name matters only if they leave it open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from deita_tasks.errors import InputError
from deita_tasks.loading import csv_text, json_array, json_lines
from deita_tasks.loading.base import Row, RowFormat

Container = Literal["json_lines", "json_array", "csv", "parquet"]

READERS: dict[str, Callable[[Iterable[bytes]], Iterator[Row]]] = {
    "json_lines": json_lines.rows,
    "json_array": json_array.rows,
    "csv": csv_text.rows,
}

HEAD_BYTES = 64 << 10  # of the content, from which the container is detected
CSV_NAME = re.compile(r"\.[ct]sv(\.\w+)?$", re.IGNORECASE)
BOM = b"\xef\xbb\xbf"
UNSUPPORTED = (
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)"),
    (b"BZh", "compressed with bzip2"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"ARROW1", "an Arrow IPC file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)


def detect_container(head: bytes, uri: str, layouts: Iterable[RowFormat]) -> Container:
    """Return the container of the file `uri`, whose decompressed content begins with `head`.

    Content that begins like neither JSON nor Parquet is CSV if its first line names the columns of
    one of `layouts`, or if the file's name says so. Raises InputError for unsupported content.
    """
    if head.startswith(b"PAR1"):
        return "parquet"
    for magic, description in UNSUPPORTED:
        if head.startswith(magic):
            raise InputError(
                f"the content is {description}; expected JSON, JSON Lines or CSV in UTF-8, plain "
                "or compressed with gzip, xz or zstd, or Parquet"
            )
    text = head.removeprefix(BOM).lstrip()
    if text.startswith(b"["):
        return "json_lines" if _is_lines_of_lists(text) else "json_array"
    if text.startswith(b"{"):
        return "json_lines"
    if CSV_NAME.search(uri) or _names_columns(text, layouts):
        return "csv"
    return "json_lines"


def _names_columns(text: bytes, layouts: Iterable[RowFormat]) -> bool:
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
