"""CSV with a header (RFC 4180). Quoted cells may contain line breaks.

If a record cannot be parsed (a quote is never closed, or text follows a closing quote), only its
first line is quarantined, and reading goes on with the next line. So one bad record does not
swallow the good ones after it.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator

from deita_tasks.errors import InputError
from deita_tasks.loading.base import (
    MAX_ROW_BYTES,
    BadRow,
    Row,
    check_no_nul,
    list_names,
    not_utf8,
    row_too_long,
)
from deita_tasks.loading.json_lines import Line, split_lines

MAX_LINES = 100_000  # of one record; a line costs far more memory than its bytes


class _RecordTooLong(Exception):
    """The record has not ended within MAX_ROW_BYTES or MAX_LINES."""


class _LineFeed:
    """The lines for csv.reader, which takes as many as a record needs.

    The lines of a record that failed can be put back.
    """

    def __init__(self, source: Iterator[Line]) -> None:
        self._source = source
        self._put_back: deque[Line] = deque()
        self._record: list[Line] = []  # the lines of the current record
        self._record_bytes = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._put_back.popleft() if self._put_back else next(self._source)
        self._record.append(line)
        self._record_bytes += line.size
        if self._record_bytes > MAX_ROW_BYTES or len(self._record) > MAX_LINES:
            raise _RecordTooLong
        return line.content.decode("utf-8", "surrogateescape")

    @property
    def first_line(self) -> Line:
        """The first line of the current record."""
        return self._record[0]

    @property
    def raw(self) -> bytes:
        """The bytes of the current record."""
        return b"".join(line.content for line in self._record)

    def start_record(self) -> None:
        self._record = []
        self._record_bytes = 0

    def put_back(self) -> None:
        """Reduce the current record to its first line; the others will be read again."""
        self._put_back.extendleft(reversed(self._record[1:]))
        del self._record[1:]


def rows(blocks: Iterable[bytes]) -> Iterator[Row]:
    """Yield the rows of a CSV file, numbered by the line in which they begin.

    Raises InputError if there is no header with unique names.
    """
    # This limit is one for the whole process, and 128 KiB by default. _LineFeed enforces ours.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    source = split_lines(blocks)
    first = next((line for line in source if line.content.strip()), None)
    if first is None:
        return
    header = parse_header(first.content)
    feed = _LineFeed(source)
    reader = csv.reader(feed, delimiter=detect_delimiter(first.content), strict=True)
    while True:
        feed.start_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _unparsed_row(feed, str(error))
        except _RecordTooLong:
            limits = f"{MAX_ROW_BYTES:,} bytes or {MAX_LINES:,} lines"
            yield _unparsed_row(feed, f"a quote is not closed within {limits}")
        else:
            if cells:  # otherwise it is a blank line
                yield _parsed_row(feed, header, cells)


def detect_delimiter(header: bytes) -> str:
    """Return the most frequent delimiter in `header`: a comma, a tab or a semicolon."""
    return max(",\t;", key=lambda delimiter: header.count(delimiter.encode()))


def parse_header(line: bytes) -> list[str]:
    """Return the names of the columns. Raises InputError if `line` does not hold unique names."""
    delimiter = detect_delimiter(line)
    try:
        reader = csv.reader([line.decode("utf-8")], delimiter=delimiter, strict=True)
        names = next(reader, [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the header cannot be read ({error}); expected the names of columns in UTF-8"
        ) from error
    if len(set(names)) != len(names):
        raise InputError(
            f"duplicate names in the header {list_names(names)}; expected unique names"
        )
    return names


def _unparsed_row(feed: _LineFeed, problem: str) -> Row:
    """Return the first line of a record that cannot be parsed, and put the others back."""
    feed.put_back()
    size = feed.first_line.size
    if size > MAX_ROW_BYTES:
        return _bad_row(feed, row_too_long(size))
    return _bad_row(feed, BadRow("malformed_row", f"not CSV from this line on: {problem}"))


def _bad_row(feed: _LineFeed, problem: BadRow) -> Row:
    return Row(feed.first_line.number, None, feed.raw, problem)


def _parsed_row(feed: _LineFeed, header: list[str], cells: list[str]) -> Row:
    raw = feed.raw
    try:
        raw.decode("utf-8")
        check_no_nul(raw)
    except UnicodeDecodeError as error:
        return _bad_row(feed, not_utf8(error, "the row"))
    except BadRow as problem:
        return _bad_row(feed, problem)
    if len(cells) != len(header):
        detail = f"{len(cells)} cells; the header names {len(header)} columns"
        return _bad_row(feed, BadRow("malformed_row", detail))
    return Row(feed.first_line.number, dict(zip(header, cells, strict=True)), raw)
