"""CSV with a header (RFC 4180): cells of text, which may go over several lines within quotes.

Where a record cannot be parsed (a quote that is never closed, or closed amid a text), its first
line alone is quarantined and reading goes on with the next line: what is wrong with one record must
not swallow the good ones after it.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator

from deita_tasks.errors import InputError
from deita_tasks.loading.base import MAX_ROW, BadRow, Row, listed, too_long
from deita_tasks.loading.json_lines import Line, lines

MAX_LINES = 100_000  # of one record; each costs far more memory than its bytes


class _Unclosed(Exception):
    """The record has not ended within MAX_ROW bytes or MAX_LINES lines."""


class _Feed:
    """Lines for csv.reader, which takes as many as a record needs; those of a record that failed
    can be given back.
    """

    def __init__(self, source: Iterator[Line]) -> None:
        self._source = source
        self._again: deque[Line] = deque()
        self.taken: list[Line] = []
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._source)
        self.taken.append(line)
        self._size += line.size
        if self._size > MAX_ROW or len(self.taken) > MAX_LINES:
            raise _Unclosed
        return line.content.decode("utf-8", "surrogateescape")

    def start_record(self) -> None:
        self.taken, self._size = [], 0

    def give_back(self) -> None:
        """All lines of this record but the first will be read again."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def rows(blocks: Iterable[bytes]) -> Iterator[Row]:
    """The rows of a CSV file, numbered by the line they begin in. Raises InputError where there is
    no header with unique names.
    """
    csv.field_size_limit(
        max(csv.field_size_limit(), MAX_ROW)
    )  # one limit for the process, 128 KiB at first; _Feed holds ours
    source = lines(blocks)
    first = next((line for line in source if line.content.strip()), None)
    if first is None:
        return
    header = header_of(first.content)
    feed = _Feed(source)
    reader = csv.reader(feed, delimiter=delimiter_of(first.content), strict=True)
    while True:
        feed.start_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            feed.give_back()
            yield _bad(feed, BadRow("malformed_row", f"not CSV from this line on: {error}"))
        except _Unclosed:
            feed.give_back()
            size = feed.taken[0].size
            unclosed = BadRow(
                "malformed_row",
                f"not CSV from this line on: a quote is not closed within {MAX_ROW:,} bytes "
                f"or {MAX_LINES:,} lines",
            )
            yield _bad(feed, too_long(size) if size > MAX_ROW else unclosed)
        else:
            if cells:  # a blank line is no row
                yield _row(feed, header, cells)


def delimiter_of(header: bytes) -> str:
    """The character between the columns of `header`: a comma, a tab or a semicolon, the one that
    occurs most.
    """
    return max(",\t;", key=lambda character: header.count(character.encode()))


def header_of(line: bytes) -> list[str]:
    """The names of the columns. Raises InputError where `line` does not hold unique names."""
    try:
        names = next(
            csv.reader([line.decode("utf-8")], delimiter=delimiter_of(line), strict=True), []
        )
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the header cannot be read ({error}); expected the names of columns in UTF-8"
        ) from error
    if len(set(names)) != len(names):
        raise InputError(
            f"two columns of one name in the header {listed(names)}; expected unique names"
        )
    return names


def _bad(feed: _Feed, problem: BadRow) -> Row:
    return Row(feed.taken[0].number, None, b"".join(line.content for line in feed.taken), problem)


def _row(feed: _Feed, header: list[str], cells: list[str]) -> Row:
    raw = b"".join(line.content for line in feed.taken)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return _bad(
            feed,
            BadRow(
                "invalid_utf8",
                f"byte {error.start + 1} of the row, 0x{raw[error.start]:02x}, is not UTF-8",
            ),
        )
    if b"\0" in raw:
        return _bad(feed, BadRow("nul_byte", f"a NUL byte at byte {raw.index(0) + 1} of the row"))
    if len(cells) != len(header):
        return _bad(
            feed,
            BadRow("malformed_row", f"{len(cells)} cells; the header names {len(header)} columns"),
        )
    return Row(feed.taken[0].number, dict(zip(header, cells, strict=True)), raw)
