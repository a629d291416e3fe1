"""CSV with a header (RFC 4180). Quoted cells may contain line breaks.

A quote too many or too few makes text of one cell look like records, so what follows cannot be
trusted at once. The rules, for a file whose records were written properly but for some:

- A record whose quotes do not fit (text follows a closing quote; a quote is not closed; a cell that
  is not quoted ends with a quote, or has an escaped one) is set aside together with all lines up to
  a place where a record surely begins, as one quarantined row. That place is the end of a record
  that has a quote which begins a cell and has text after it, since no text inside a cell looks like
  that (its quotes are doubled).
- Where no quote tells, lines count as records again after DOUBT_RECORDS of them in a row had the
  header's number of cells; these are set aside too.
- The records before the fault may be pieces as well: a cell that lost its opening quote looks like
  records until the closing quote comes. So a row is handed out only when a later quote, or
  DOUBT_RECORDS or DOUBT_BYTES of further rows, have shown no fault.

A record whose quotes fit, but with another number of cells than the header, costs itself alone.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from deita_tasks.errors import InputError
from deita_tasks.loading.base import (
    MAX_RAW_BYTES,
    MAX_ROW_BYTES,
    BadRow,
    Row,
    check_no_nul,
    list_names,
    not_utf8,
    row_too_long,
)
from deita_tasks.loading.csv_records import Quotes, Record, RecordReader
from deita_tasks.loading.json_lines import Line, split_lines
from deita_tasks.strict_json import JSON

# No cell has so many lines in a row that look like records of the same table.
DOUBT_RECORDS = 256
DOUBT_BYTES = 1 << 20


def rows(blocks: Iterable[bytes]) -> Iterator[Row]:
    """Yield the rows of a CSV file, numbered by the line in which they begin.

    Raises InputError if there is no header with unique names.
    """
    # This limit is one for the whole process, and 128 KiB by default. RecordReader enforces ours.
    limit = csv.field_size_limit()
    csv.field_size_limit(max(limit, MAX_ROW_BYTES))
    source = split_lines(blocks)
    first = next((line for line in source if line.content.strip()), None)
    if first is None:
        return iter(())
    header = parse_header(first.content)
    delimiter = detect_delimiter(first.content)
    return _Table(source, header, delimiter).rows()


def detect_delimiter(header: bytes) -> str:
    """Return the most frequent delimiter in `header`: a comma, a tab or a semicolon."""
    return max(",\t;", key=lambda delimiter: header.count(delimiter.encode()))


def parse_header(line: bytes) -> list[str]:
    """Return the names of the columns. Raises InputError if `line` does not hold unique names."""
    delimiter = detect_delimiter(line)
    try:
        text = line.decode("utf-8")
        reader = csv.reader([text], delimiter=delimiter, strict=True)
        names = next(reader, [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the header cannot be read ({error}); expected the names of columns in UTF-8"
        ) from error
    if len(set(names)) != len(names):
        listed = list_names(names)
        raise InputError(f"duplicate names in the header {listed}; expected unique names")
    return names


class _Block:
    """Lines that are set aside together."""

    def __init__(self, problem: str) -> None:
        self._problem = problem
        self._number = 0
        self._end = 0
        self._raw = b""

    def add(self, lines: Sequence[Line]) -> None:
        """Add lines, except those that were added before."""
        for line in lines:
            self.add_lines(line.number, line.number, line.content)

    def add_lines(self, number: int, end: int, raw: bytes) -> None:
        """Add the lines from `number` to `end`, unless the block already reaches that far.

        Of their bytes it keeps what a quarantined row shows.
        """
        if end <= self._end:
            return
        self._number = self._number or number
        self._end = end
        if len(self._raw) <= MAX_RAW_BYTES:
            self._raw += raw[: MAX_RAW_BYTES + 1]

    def row(self) -> Row:
        """Return all lines of the block as one bad row."""
        count = self._end - self._number + 1
        detail = f"not CSV: {self._problem}; expected quotes inside a cell to be doubled"
        if count > 1:
            detail += (
                f"; the {count:,} lines up to line {self._end} are set aside, because they may be "
                "pieces of one record"
            )
        return Row(self._number, None, self._raw, BadRow("malformed_row", detail))


class _Held(NamedTuple):
    """A row that a later fault may show to be a piece. end: its last line."""

    row: Row
    end: int
    raw: bytes


class _Table:
    """The rows below a header."""

    def __init__(self, source: Iterator[Line], header: list[str], delimiter: str) -> None:
        self._header = header
        self._reader = RecordReader(source, delimiter)
        self._quotes = Quotes(delimiter)
        self._held: deque[_Held] = deque()
        self._held_bytes = 0
        self._block: _Block | None = None  # of the lines that are in doubt
        self._like_records = 0  # records in a row in the block that could be rows

    def rows(self) -> Iterator[Row]:
        """Yield every row once no later line can show it to be a piece of a record."""
        while (record := self._reader.read()) is not None:
            raw = record.raw
            first_line = record.lines[0]
            if len(record.lines) == 1 and first_line.size > MAX_ROW_BYTES:
                too_long = row_too_long(first_line.size)
                row = Row(record.number, None, raw, too_long)
                yield from self._hold(record, raw, row)
            elif record.problem is not None and not record.is_quoting:
                problem = BadRow("malformed_row", f"not CSV: {record.problem}")
                row = Row(record.number, None, raw, problem)
                yield from self._hold(record, raw, row)
            elif record.problem is not None:
                yield from self._set_aside(record)
            elif self._quotes.are_misplaced(raw):
                yield from self._set_aside_pieces(record, raw)
            elif self._block is not None:
                yield from self._weigh(record, raw)
            elif record.cells:  # otherwise it is a blank line
                row = self._build_row(record, raw)
                yield from self._hold(record, raw, row)
        if self._block is not None:
            yield self._block.row()
        yield from self._release(0)

    def _hold(self, record: Record, raw: bytes, row: Row) -> Iterator[Row]:
        """Yield the rows that cannot be pieces any more now that `record` has come."""
        if self._block is not None:
            self._block.add(record.lines)
            return
        if b'"' in raw and self._quotes.find_opening(raw) is not None:
            yield from self._release(0)
        last_line = record.lines[-1]
        self._held.append(_Held(row, last_line.number, raw))
        self._held_bytes += len(raw)
        while len(self._held) > DOUBT_RECORDS or self._held_bytes > DOUBT_BYTES:
            yield from self._release(len(self._held) - 1)

    def _release(self, remaining: int) -> Iterator[Row]:
        """Yield the oldest rows held back until `remaining` are left."""
        while len(self._held) > remaining:
            held = self._held.popleft()
            self._held_bytes -= len(held.raw)
            yield held.row

    def _begin_block(self, record: Record, problem: str) -> _Block:
        """Return the block of lines in doubt, which begins with the rows held back."""
        if self._block is None:
            last_line = record.lines[-1]
            self._block = _Block(f"{problem} (line {last_line.number})")
            for held in self._held:
                self._block.add_lines(held.row.number, held.end, held.raw)
            self._held.clear()
            self._held_bytes = 0
        self._like_records = 0
        return self._block

    def _end_block(self) -> Iterator[Row]:
        """Yield the row of the block, if there is one; lines are records again after it."""
        if self._block is not None:
            yield self._block.row()
        self._block = None

    def _set_aside(self, record: Record) -> Iterator[Row]:
        """Set aside a record that cannot be parsed, up to where reading can resume."""
        raw = record.raw
        doubtful = record.fault or len(raw)
        opening = self._quotes.find_opening(raw)
        # After another quote, this one may close a cell whose quotes are escaped by backslashes.
        is_sure = opening is not None and opening < doubtful and b'"' not in raw[:opening]
        if is_sure:
            yield from self._release(0)  # until then, all quotes did fit
        block = self._begin_block(record, str(record.problem))
        block.add(record.lines[:1])
        between = record.lines[1:]
        last = between.pop() if between and record.fault is not None else None
        resume = self._find_run(between)
        if resume is not None:
            block.add(between[:resume])
            rest = between[resume:]
            if last:
                rest.append(last)
            self._reader.put_back(rest)
            yield from self._end_block()
            return
        block.add(between)
        if record.fault is None:
            return
        opening = self._quotes.find_opening(raw, record.fault)
        line = record.lines[-1]
        block.add([line])
        if opening is not None:  # go on inside the cell that begins there
            cell_start = line._replace(content=raw[opening:])
            self._reader.put_back([cell_start])

    def _find_run(self, lines: Sequence[Line]) -> int | None:
        """Return the end of the first DOUBT_RECORDS of `lines` in a row that could be rows."""
        run = 0
        for i, line in enumerate(lines, 1):
            if not line.content.strip():
                continue
            cells = self._reader.parse_line(line)
            run = run + 1 if len(cells) == len(self._header) else 0
            if run == DOUBT_RECORDS:
                return i
        return None

    def _set_aside_pieces(self, record: Record, raw: bytes) -> Iterator[Row]:
        """Set aside a record with a quote that belongs to an earlier line."""
        problem = "a cell that is not quoted holds the quote of a longer one"
        block = self._begin_block(record, problem)
        block.add(record.lines)
        if self._quotes.close_at_end(raw):
            yield from self._end_block()

    def _weigh(self, record: Record, raw: bytes) -> Iterator[Row]:
        """Set aside `record`, which follows a fault, and end the block if it shows the way."""
        assert self._block is not None
        self._block.add(record.lines)
        if self._quotes.find_opening(raw) is not None:
            yield from self._end_block()
        elif record.cells:
            is_like = len(record.cells) == len(self._header)
            self._like_records = self._like_records + 1 if is_like else 0
            if self._like_records == DOUBT_RECORDS:
                yield from self._end_block()

    def _build_row(self, record: Record, raw: bytes) -> Row:
        """Return a record as a row; a bad row for cells that do not fit the header.

        So is a record that is not UTF-8, holds a NUL or repeats the header.
        """
        cells = record.cells
        try:
            raw.decode("utf-8")
            check_no_nul(raw)
            if len(cells) != len(self._header):
                detail = f"{len(cells)} cells; the header names {len(self._header)} columns"
                raise BadRow("malformed_row", detail)
            first_name = cells[0].removeprefix("\ufeff")
            if first_name == self._header[0] and cells[1:] == self._header[1:]:
                raise BadRow("malformed_row", "the header once more; are these two files in one?")
        except UnicodeDecodeError as error:
            return Row(record.number, None, raw, not_utf8(error, "the row"))
        except BadRow as problem:
            return Row(record.number, None, raw, problem)
        columns: dict[str, JSON] = dict(zip(self._header, cells, strict=True))
        return Row(record.number, columns, raw)
