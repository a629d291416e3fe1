"""What a pool and a selection are made of: rows by source file, language and other columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.findings import VanishedValue
from deita_tasks.languages import language_name
from deita_tasks.strict_json import JSON

MAX_VALUES = 20  # shown of a column; a column of the input with more is not shown at all
MAX_COLUMNS = 20
VALUE_CHARACTERS = 80
LANGUAGE = "language (detected)"
SOURCE = "source file"
NO_VALUE = "no value"

# Values that vanish are worth a warning where a random selection would be expected to have this
# many rows with them; a value counts if it would have half a row.
MIN_EXPECTED = 3.0
MIN_EXPECTED_OF_VALUE = 0.5


class ValueCount(NamedTuple):
    """Rows of the pool and of the selection that have a value in a column."""

    value: str
    pool: int
    selected: int


class ColumnCounts(NamedTuple):
    """The values of a column, the most frequent first."""

    name: str
    values: list[ValueCount]


def count_column(
    name: str, values: pa.ChunkedArray, is_selected: pa.ChunkedArray | pa.Array
) -> ColumnCounts:
    """Count the values of a column over the distinct rows of a pool."""
    selected = pc.cast(is_selected, pa.int64())
    table = pa.table({"value": values, "selected": selected})
    groups = table.group_by("value").aggregate([("selected", "count"), ("selected", "sum")])
    counts = groups.select(["value", "selected_count", "selected_sum"])
    columns = counts.to_pydict().values()
    return _ordered(name, map(ValueCount, *columns))


def with_names(column: ColumnCounts) -> ColumnCounts:
    """Return the counts of languages under their English names."""
    named = []
    for count in column.values:
        name = language_name(count.value)
        named.append(count._replace(value=name))
    return ColumnCounts(column.name, named)


def _ordered(name: str, values: Iterable[ValueCount]) -> ColumnCounts:
    """Return the counts of a column, the most frequent value first, equals by their text."""
    ordered = sorted(values, key=lambda count: (-count.pool, count.value))
    return ColumnCounts(name, ordered)


class ValueCounter:
    """Counts the values of the input's other columns, row by row, in bounded memory.

    It gives up a column with more than MAX_VALUES values, or with lists or objects.
    """

    def __init__(self) -> None:
        self._rows = [0, 0]  # of the pool, of the selection
        self._columns: dict[str, dict[str, list[int]] | None] = {}

    def add(self, columns: Mapping[str, JSON], is_selected: bool) -> None:
        """Count the values of a row."""
        self._rows[0] += 1
        self._rows[1] += is_selected
        for name, value in columns.items():
            values = self._columns.setdefault(name, {})
            if values is None or value is None:
                continue
            if isinstance(value, list | dict):
                self._columns[name] = None
                continue
            numbers = values.setdefault(value_text(value), [0, 0])
            numbers[0] += 1
            numbers[1] += is_selected
            if len(values) > MAX_VALUES:
                self._columns[name] = None

    def counts(self) -> list[ColumnCounts]:
        """Return the columns of few values, in the order of the input.

        A column whose values hardly repeat is an id and left out.
        """
        most_values = self._rows[0] // 2
        columns = []
        for name, values in self._columns.items():
            if values:
                column = self._complete(name, values)
                columns.append(column)
        return [column for column in columns if len(column.values) <= most_values]

    def _complete(self, name: str, values: Mapping[str, list[int]]) -> ColumnCounts:
        """Return the counts of a column, rows without it among them as NO_VALUE."""
        counts = [ValueCount(value, *numbers) for value, numbers in values.items()]
        pool_rows, selected_rows = self._rows
        total = sum_of("", counts)
        if total.pool < pool_rows:
            without = ValueCount(NO_VALUE, pool_rows - total.pool, selected_rows - total.selected)
            counts.append(without)
        return _ordered(name, counts)


def value_text(value: JSON) -> str:
    """Return a value as the report shows it: a text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value or "(empty)"
    return json.dumps(value)


def find_vanished(column: ColumnCounts) -> list[VanishedValue]:
    """Return the values that no selected row has, if a random selection would have some of them.

    A random selection of the same size would be expected to have at least MIN_EXPECTED such rows.
    """
    _, pool, selected = sum_of("", column.values)
    vanished = [
        VanishedValue(
            column=column.name,
            value=shorten(value.value),
            rows=value.pool,
            expected=round(value.pool * selected / pool, 3),
        )
        for value in column.values
        if not value.selected and value.pool * selected >= MIN_EXPECTED_OF_VALUE * pool
    ]
    expected = sum(value.rows for value in vanished) * selected
    return vanished if expected >= MIN_EXPECTED * pool else []


def shorten(text: str, characters: int = VALUE_CHARACTERS) -> str:
    """Return the beginning and the end of a long text, on one line."""
    line = " ".join(text.split())
    if len(line) <= characters:
        return line
    half = characters // 2
    return f"{line[:half]} … {line[-half:]}"


class ValueRow(NamedTuple):
    """A row of a table of values. The shares are text."""

    value: str
    pool: int
    pool_share: str
    selected: int
    selected_share: str
    vanished: bool


class ValueTable(NamedTuple):
    """A column as a table. warning: which values vanished, or ""."""

    name: str
    rows: list[ValueRow]
    warning: str


class Composition(NamedTuple):
    """What the report shows of columns. constants: name and value of those with one value alone.

    left_out: names of the columns beyond MAX_COLUMNS.
    """

    tables: list[ValueTable]
    constants: list[tuple[str, str]]
    left_out: list[str]


def lay_out(columns: Sequence[ColumnCounts], vanished: Sequence[VanishedValue]) -> Composition:
    """Return the tables of some columns; the values of `vanished` are marked in them."""
    several = [column for column in columns if len(column.values) > 1]
    constants = [
        (shorten(column.name), shorten(column.values[0].value))
        for column in columns
        if len(column.values) == 1
    ]
    tables = [_table(column, vanished) for column in several[:MAX_COLUMNS]]
    left_out = [shorten(column.name) for column in several[MAX_COLUMNS:]]
    return Composition(tables, constants, left_out)


def _table(column: ColumnCounts, vanished: Sequence[VanishedValue]) -> ValueTable:
    """Return the table of a column; values beyond MAX_VALUES share its last row."""
    lost = [value.value for value in vanished if value.column == column.name]
    total = sum_of("", column.values)
    shown = column.values[:MAX_VALUES]
    rest = column.values[MAX_VALUES:]
    if rest:
        sum_of_rest = sum_of(f"{len(rest):,} more", rest)
        shown = [*shown, sum_of_rest]
    rows = []
    for count in shown:
        value = shorten(count.value)
        row = ValueRow(
            value,
            count.pool,
            _share(count.pool, total.pool),
            count.selected,
            _share(count.selected, total.selected),
            value in lost,
        )
        rows.append(row)
    return ValueTable(shorten(column.name), rows, _warning(lost))


def _warning(lost: Sequence[str]) -> str:
    """Return the sentence that names up to MAX_VALUES vanished values; "" for none."""
    if not lost:
        return ""
    named = ", ".join(lost[:MAX_VALUES])
    more = ""
    if len(lost) > MAX_VALUES:
        more = f" and {len(lost) - MAX_VALUES:,} more"
    return f"WARNING: no selected row has {named}{more}."


def sum_of(name: str, values: Sequence[ValueCount]) -> ValueCount:
    """Return the rows of all these values together, under a name."""
    pool = sum(value.pool for value in values)
    selected = sum(value.selected for value in values)
    return ValueCount(name, pool, selected)


def _share(rows: int, total: int) -> str:
    """Return a share in percent; a dash of nothing."""
    if not total:
        return "–"
    return f"{rows / total:.1%}"
