"""JSON Lines: one JSON object a line. Blank lines are no rows."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from deita_tasks.loading.base import KEPT, MAX_ROW, BadRow, Row, too_long
from deita_tasks.loading.json_text import parse_row


class Line(NamedTuple):
    """`number` is 1-based. `content` has its line end; of a line over MAX_ROW bytes it is the
    beginning alone. `size` is the whole's.
    """

    number: int
    content: bytes
    size: int


def lines(blocks: Iterable[bytes]) -> Iterator[Line]:
    """The lines in `blocks`. No more than MAX_ROW bytes of one line are ever held."""
    number, held, size = 1, [], 0
    for block in blocks:
        for piece in io.BytesIO(block):
            size += len(piece)
            if size <= MAX_ROW:
                held.append(piece)
            else:
                held = [(b"".join(held) + piece[:KEPT])[:KEPT]]
            if piece.endswith(b"\n"):
                yield Line(number, b"".join(held), size)
                number, held, size = number + 1, [], 0
    if size:
        yield Line(number, b"".join(held), size)


def rows(blocks: Iterable[bytes]) -> Iterator[Row]:
    """The rows of a file of JSON Lines."""
    for number, content, size in lines(blocks):
        if size > MAX_ROW:
            yield Row(number, None, content, too_long(size))
        elif content.strip():
            yield json_row(number, content)


def json_row(number: int, content: bytes) -> Row:
    """The row whose JSON object is `content`."""
    try:
        return Row(number, parse_row(content), content)
    except BadRow as problem:
        return Row(number, None, content, problem)
