"""What a file's bytes are a container of, told from its first bytes; the name helps only where they
leave it open.
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

HEAD = 64 << 10  # bytes that are looked at
CSV_NAME = re.compile(r"\.[ct]sv(\.\w+)?$", re.IGNORECASE)
BOM = b"\xef\xbb\xbf"
REFUSED = (
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)"),
    (b"BZh", "compressed with bzip2"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"ARROW1", "an Arrow IPC file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)


def container_of(head: bytes, uri: str, layouts: Iterable[RowFormat]) -> Container:
    """What the file `uri`, whose decompressed content begins with `head`, contains. Raises
    InputError for what is certainly no pool.

    CSV is what begins neither like JSON nor like Parquet, and whose first line names the columns of
    one of `layouts`, or whose own name says so.
    """
    if head.startswith(b"PAR1"):
        return "parquet"
    for magic, what in REFUSED:
        if head.startswith(magic):
            raise InputError(
                f"the content is {what}; expected JSON, JSON Lines or CSV in UTF-8, plain or "
                "compressed with gzip, xz or zstd, or Parquet"
            )
    text = head.removeprefix(BOM).lstrip()
    if text.startswith(b"[") and not _lines_of_lists(text):
        return "json_array"
    if not text.startswith((b"[", b"{")) and (
        CSV_NAME.search(uri) or _names_columns(text, layouts)
    ):
        return "csv"
    return "json_lines"


def _names_columns(text: bytes, layouts: Iterable[RowFormat]) -> bool:
    try:
        names = csv_text.header_of(text.partition(b"\n")[0])
    except InputError:
        return False
    return any(layout.fits(names) for layout in layouts)


def _lines_of_lists(text: bytes) -> bool:
    """Whether `text`, which begins with "[", is JSON Lines with a bad first line: a whole list by
    itself, or before a line that is whole.

    In an array, one line ends with a comma or an opening bracket before the next element begins.
    """
    found = [line.strip() for line in re.split(rb"[\r\n]+", text)[:3]]
    if len(found) < 2 or not found[1] or found[0].endswith((b",", b"[")):
        return False
    return _is_json(found[0]) or _is_json(found[1])


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def without_bom(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """`blocks` without a UTF-8 byte order mark at the beginning."""
    first = b""
    stream = iter(blocks)
    for block in stream:
        first += block
        if len(first) >= len(BOM):
            break
    yield first.removeprefix(BOM)
    yield from stream
