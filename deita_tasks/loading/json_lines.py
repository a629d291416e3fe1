"""JSON Lines: one JSON object per line. Blank lines are skipped."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from deita_tasks.loading.base import MAX_RAW_BYTES, MAX_ROW_BYTES, BadRow, Row, row_too_long
from deita_tasks.loading.json_text import parse_row


class Accumulator:
    """The pieces of a row that spans several blocks.

    Holds at most MAX_ROW_BYTES: of a longer row, the first MAX_RAW_BYTES and its size.
    """

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Add the next piece; of a row that has become too long, only its size grows."""
        self.size += len(piece)
        self._pieces.append(piece)
        if self.size > MAX_ROW_BYTES:
            self._pieces = [b"".join(self._pieces)[:MAX_RAW_BYTES]]

    def take(self) -> tuple[bytes, int]:
        """Return the content and the size of the row, and start with the next row."""
        content = b"".join(self._pieces)
        size = self.size
        self._pieces = []
        self.size = 0
        return content, size


class Line(NamedTuple):
    """A line with its line end.

    `number` is 1-based. `size` is in bytes; over MAX_ROW_BYTES, `content` is only the beginning.
    """

    number: int
    content: bytes
    size: int


def split_lines(blocks: Iterable[bytes]) -> Iterator[Line]:
    """Yield the lines in `blocks`, holding at most MAX_ROW_BYTES of one line."""
    number = 1
    line = Accumulator()
    for block in blocks:
        for piece in io.BytesIO(block):
            line.add(piece)
            if piece.endswith(b"\n"):
                yield Line(number, *line.take())
                number += 1
    if line.size:
        yield Line(number, *line.take())


def rows(blocks: Iterable[bytes]) -> Iterator[Row]:
    """Yield the rows of a JSON Lines file, a bad line as a row with its problem.

    A row has the number of its line, from 1 on: blank lines count, but are no rows.
    """
    for number, content, size in split_lines(blocks):
        if size > MAX_ROW_BYTES:
            yield Row(number, None, content, row_too_long(size))
        elif content.strip():
            yield parse_json_row(number, content)


def parse_json_row(number: int, content: bytes) -> Row:
    """Return the row whose JSON object is `content`, with its problem if it is not one."""
    try:
        return Row(number, parse_row(content), content)
    except BadRow as problem:
        return Row(number, None, content, problem)
