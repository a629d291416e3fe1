"""A file of a pool: detect what it is, and read its rows as conversations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deita_tasks.conversations import Conversation, Quarantined, SourceRow
from deita_tasks.errors import EmptyFile, InputError
from deita_tasks.loading.advice import explain_mismatch
from deita_tasks.loading.base import (
    MAX_RAW_BYTES,
    MAX_RAW_CHARACTERS,
    BadRow,
    BrokenFile,
    Row,
    RowFormat,
)
from deita_tasks.loading.compression import Compression, detect_compression
from deita_tasks.loading.containers import (
    BINARY_READERS,
    HEAD_BYTES,
    Container,
    by_column,
    detect_container,
)
from deita_tasks.loading.reading import open_file, read_head, read_rows
from deita_tasks.strict_json import JSON

SAMPLE_ROWS = 100  # readable rows from which the format is detected
MAX_SEARCHED_ROWS = 10_000  # rows in which they are looked for


@dataclass(frozen=True)
class PoolFile:
    """A file of conversations and how to read it. Each iteration reads it from the beginning.

    needs_answer: whether a row without an answer is a bad one.
    """

    uri: str
    compression: Compression
    container: Container
    format: RowFormat
    needs_answer: bool = True

    def __str__(self) -> str:
        columns = ", ".join(self.format.required_columns())
        packed = "" if self.compression == "none" else f", {self.compression}"
        return f"{self.uri}: {self.format.name} ({columns}) in {self.container}{packed}"

    def __iter__(self) -> Iterator[Conversation | Quarantined]:
        rows = read_rows(self.uri, self.compression, self.container)
        return conversations(rows, self.uri, self.format, self.needs_answer)


def conversations(
    rows: Iterable[Row], uri: str, row_format: RowFormat, needs_answer: bool = True
) -> Iterator[Conversation | Quarantined]:
    """Yield each of `rows` as a Conversation, or Quarantined if it cannot be one.

    None is lost, and the order stays. uri: the file that they are said to be of.
    """
    for row in rows:
        source = SourceRow(uri, row.number)
        if row.columns is None:
            yield quarantine(row, source)
            continue
        try:
            yield row_format.conversation(row.columns, source, needs_answer)
        except BadRow as problem:
            yield quarantine(row._replace(problem=problem), source)


def detect_file(uri: str, layouts: Sequence[RowFormat], require_match: bool) -> PoolFile:
    """Detect what the file `uri` is; its layout follows from the first SAMPLE_ROWS readable rows.

    Each of these rows counts for the first of `layouts` whose columns it has. The layout with the
    most rows wins, the earlier one on a tie. Other rows will be quarantined. If no row matches any
    layout, `require_match` raises InputError; without it the first layout is used.
    """
    compression, container = _detect_encoding(uri, layouts)
    rows = read_rows(uri, compression, container)
    layout = choose_layout(rows, uri, layouts, require_match)
    return PoolFile(uri, compression, container, layout)


def choose_layout(
    rows: Iterable[Row], uri: str, layouts: Sequence[RowFormat], require_match: bool
) -> RowFormat:
    """Return the layout of the first of `rows`, as described under `detect_file`.

    Raises EmptyFile if there are no rows, and InputError if the only row holds whole columns, or if
    no row matches any layout and `require_match` is set.
    """
    sample = sample_rows(rows, layouts)
    if not sample.columns and sample.first_problem is None:
        raise EmptyFile(f"{uri}: no rows; expected conversations")
    if sample.readable == 1 and _is_by_column(sample.first_row):
        raise InputError(f"{uri}: {by_column()}")
    if require_match and not sample.votes:
        problem = explain_mismatch(sample.columns, sample.first_problem, layouts)
        raise InputError(f"{uri}: {problem}")
    best = max(range(len(layouts)), key=lambda i: (sample.votes[i], -i))
    return layouts[best]


def _detect_encoding(uri: str, layouts: Sequence[RowFormat]) -> tuple[Compression, Container]:
    """Return how a file is packed. Raises InputError for a combination that cannot be streamed."""
    with open_file(uri) as handle:
        packed_head = handle.read(HEAD_BYTES)
        compression = detect_compression(packed_head)
        handle.seek(0)
        head = read_head(handle, compression)
        container = detect_container(head, uri, layouts)
        if container in BINARY_READERS and compression != "none":
            raise InputError(
                f"{container.capitalize()} inside {compression} cannot be read in parts; "
                "decompress the file (it is compressed internally)"
            )
    return compression, container


@dataclass
class Sample:
    """What the first rows of a file look like.

    votes: how many rows have the columns of each layout, by the layout's index. columns: all names
    in these rows, in order of appearance. first_problem: what is wrong with the first bad row.
    """

    votes: Counter[int] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    first_problem: str | None = None
    first_row: dict[str, JSON] | None = None
    readable: int = 0

    def add(self, row: Row, layouts: Sequence[RowFormat]) -> None:
        """Count one row, for the first of `layouts` that it matches; keep a bad one's problem."""
        if row.columns is None:
            self.first_problem = self.first_problem or f"row {row.number}: {row.problem}"
            return
        self.first_row = self.first_row or row.columns
        self.readable += 1
        self.columns.update(dict.fromkeys(row.columns))
        present = {name for name, value in row.columns.items() if value is not None}
        matching = [i for i, layout in enumerate(layouts) if layout.matches(present)]
        self.votes.update(matching[:1])


def sample_rows(rows: Iterable[Row], layouts: Sequence[RowFormat]) -> Sample:
    """Look at `rows` until SAMPLE_ROWS were readable, but not at more than MAX_SEARCHED_ROWS.

    Raises BrokenFile if the file is damaged before its first readable row with columns.
    """
    sample = Sample()
    try:
        for searched, row in enumerate(rows, 1):
            sample.add(row, layouts)
            if sample.readable == SAMPLE_ROWS or searched == MAX_SEARCHED_ROWS:
                break
    except BrokenFile:
        if not sample.columns:
            raise  # otherwise reading raises it, after the rows before the damage
    return sample


def _is_by_column(columns: Mapping[str, JSON] | None) -> bool:
    """Return whether a file's only row holds a list, or values by number, in each cell."""
    cells = list((columns or {}).values())
    if not cells:
        return False
    if all(isinstance(cell, dict) for cell in cells):
        names = [list(cell) for cell in cells if isinstance(cell, dict)]
        first = names[0]
        if first[:1] != ["0"]:
            return False
        return all(others == first for others in names)
    lists = [cell for cell in cells if isinstance(cell, list)]
    if len(lists) != len(cells):
        return False
    lengths = {len(cell) for cell in lists}
    if len(lengths) != 1 or lengths == {0}:
        return False
    items = [item for cell in lists for item in cell]
    return not any(isinstance(item, dict) for item in items)


def quarantine(row: Row, source: SourceRow) -> Quarantined:
    """Return the bad row as Quarantined, with at most MAX_RAW_CHARACTERS of its content."""
    assert row.problem is not None
    if row.raw is None:
        content = json.dumps(row.columns, ensure_ascii=False).encode()
    else:
        content = row.raw.rstrip(b"\r\n")
    start = content[:MAX_RAW_BYTES].decode("utf-8", "backslashreplace")
    raw = start.replace("\0", "\\x00")
    detail = row.problem.detail
    if len(content) > MAX_RAW_BYTES or len(raw) > MAX_RAW_CHARACTERS:
        raw = raw[:MAX_RAW_CHARACTERS]
        detail += f" (only the first {MAX_RAW_CHARACTERS:,} characters of the row are kept)"
    return Quarantined(source, row.problem.reason, detail, raw)
