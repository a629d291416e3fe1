"""Split CSV into records, and tell where quotes do not fit."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deita_tasks.loading.base import MAX_ROW_BYTES
from deita_tasks.loading.json_lines import Line

MAX_LINES = 100_000  # of one record; a line costs far more memory than its bytes


class Record(NamedTuple):
    """A record, or what was read of it up to the place where it cannot be parsed.

    cells: empty for a blank line. problem: why it cannot be parsed. fault: the position in `raw` of
    a quote that ends a cell and that other text follows; None if there is no such quote.
    """

    lines: list[Line]
    cells: list[str]
    problem: str | None = None
    fault: int | None = None

    @property
    def raw(self) -> bytes:
        """The bytes of its lines, line ends included."""
        return b"".join([line.content for line in self.lines])

    @property
    def number(self) -> int:
        """The number of its first line."""
        return self.lines[0].number

    @property
    def is_quoting(self) -> bool:
        """Whether quotes are the problem, and not a line end of another kind."""
        return self.problem is not None and "new-line" not in self.problem


class _RecordTooLong(Exception):
    """The record has not ended within MAX_ROW_BYTES or MAX_LINES."""


class RecordReader:
    """Reads records (RFC 4180) from lines. Lines can be put back."""

    def __init__(self, source: Iterator[Line], delimiter: str) -> None:
        self._source = source
        self._put_back: deque[Line] = deque()
        self._lines: list[Line] = []  # of the current record
        self._bytes = 0
        self._parser = csv.reader(self._take_lines(), delimiter=delimiter, strict=True)
        self._delimiter = delimiter
        self._quotes = Quotes(delimiter)

    def read(self) -> Record | None:
        """Return the next record, or None at the end.

        One that cannot be parsed, or is too long or has too many lines, has a problem and no cells.
        """
        self._lines = []
        self._bytes = 0
        try:
            return Record(self._lines, next(self._parser))
        except StopIteration:
            return None
        except csv.Error as error:
            unparsed = Record(self._lines, [])
            fault = self._quotes.find_fault(unparsed.raw)
            return self._fail(str(error), fault)
        except _RecordTooLong:
            limits = f"{MAX_ROW_BYTES:,} bytes or {MAX_LINES:,} lines"
            return self._fail(f"a quote is not closed within {limits}", None)

    def put_back(self, lines: Sequence[Line]) -> None:
        """Let `lines` be read next, in their order, as if they had not been read."""
        self._put_back.extendleft(reversed(lines))

    def parse_line(self, line: Line) -> list[str]:
        """Return the cells of a line by itself; [] if it cannot be parsed."""
        text = line.content.decode("utf-8", "surrogateescape")
        parser = csv.reader([text], delimiter=self._delimiter, strict=True)
        try:
            return next(parser, [])
        except csv.Error:
            return []

    def _fail(self, problem: str, fault: int | None) -> Record:
        """Return what was read as a record without cells; go on with a new parser."""
        self._parser = csv.reader(self._take_lines(), delimiter=self._delimiter, strict=True)
        return Record(self._lines, [], problem, fault)

    def _take_lines(self) -> Iterator[str]:
        """Yield lines to the parser, and note them. Raises _RecordTooLong."""
        while True:
            line = self._put_back.popleft() if self._put_back else next(self._source, None)
            if line is None:
                return
            self._lines.append(line)
            self._bytes += line.size
            if self._bytes > MAX_ROW_BYTES or len(self._lines) > MAX_LINES:
                raise _RecordTooLong
            yield line.content.decode("utf-8", "surrogateescape")


class Quotes:
    """What the quotes of a record say about where cells begin and end.

    A program that writes CSV doubles the quotes inside a cell. So a quote that begins a cell, with
    text after it, occurs nowhere else.
    """

    def __init__(self, delimiter: str) -> None:
        comma = re.escape(delimiter.encode())
        self._opening = re.compile(rb'(?m)(?:(?<=%b)|^)"[^"\r\n%b]' % (comma, comma))
        self._cell = re.compile(
            rb'(?:"[^"]*+(?:""[^"]*+)*+(?P<close>")|(?P<plain>[^"\r\n%b][^\r\n%b]*+)|)'
            rb"(?P<end>%b|\r?\n|\Z)?" % (comma, comma, comma)
        )

    def find_opening(self, raw: bytes, start: int = 0) -> int | None:
        """Return the position of the first quote from `start` on that surely begins a cell."""
        match = self._opening.search(raw, start)
        return match.start() if match else None

    def find_fault(self, raw: bytes) -> int | None:
        """Return the position of the first quote that ends a cell with text after it."""
        position = 0
        while position < len(raw):
            cell = self._cell.match(raw, position)
            if cell is None or cell["end"] is None:
                return cell.start("close") if cell and cell["close"] else None
            position = cell.end()
        return None

    def are_misplaced(self, raw: bytes) -> bool:
        """Return whether a cell of a parsed record ends with a quote that nothing has opened.

        Or has an escaped quote without being quoted. Both are parts of a longer cell.
        """
        if b'\\"' not in raw and raw.count(b'"') % 2 == 0:
            return False
        for cell in self._plain_cells(raw):
            is_escaped = b'\\"' in cell
            is_odd = cell.endswith(b'"') and cell.count(b'"') % 2
            if is_escaped or is_odd:
                return True
        return False

    def close_at_end(self, raw: bytes) -> bool:
        """Return whether the last quote of a record surely ends a cell."""
        before, quote, after = raw.rpartition(b'"')
        if not quote or after.strip(b"\r\n"):
            return False
        return before[-1:] not in (b"\\", b"\n")

    def _plain_cells(self, raw: bytes) -> Iterator[bytes]:
        """Yield the cells of a record that are neither quoted nor empty."""
        position = 0
        while position < len(raw):
            cell = self._cell.match(raw, position)
            if cell is None or cell.end() == position:
                return
            if cell["plain"]:
                yield cell["plain"]
            position = cell.end()
