"""What stands at the top of a report: pool beside selection, and what is lost."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.findings import VanishedValue
from deita_tasks.manifest import Manifest
from deita_tasks.reporting.composition import (
    LANGUAGE,
    SOURCE,
    ColumnCounts,
    ValueCount,
    shorten,
    sum_of,
)
from deita_tasks.reporting.figures import Split
from deita_tasks.reporting.statistics import EVOL_SCORE, distinct_rows, with_decision

MAX_LOST = 40  # values shown
# The first number of each range.
TURN_RANGES = (0, 1, 2, 3, 5, 10)
WORD_RANGES = (0, 50, 100, 200, 400, 800, 1_600)
# Columns of which the number of values is shown.
COUNTED = {SOURCE: "source files", LANGUAGE: "languages"}
# By measure: its title, the average, and how many digits are shown.
AVERAGES: Mapping[str, tuple[str, Callable[..., Any], int]] = {
    "words": ("words, median", np.median, 0),
    "user turns": ("user turns, mean", np.mean, 2),
    EVOL_SCORE: ("score, median", np.median, 1),
}


class OverviewRow(NamedTuple):
    """A measure of the pool and of the selection, as texts."""

    name: str
    pool: str
    selected: str


class LostValue(NamedTuple):
    """A value that no selected row has. expected: rows of a random selection of the same size."""

    column: str
    value: str
    rows: int
    expected: str
    is_warning: bool


class LostValues(NamedTuple):
    """The most frequent values that no selected row has; more: how many others there are."""

    shown: list[LostValue]
    more: int


class Truncation(NamedTuple):
    """Rows that a model read only in part, by stage and of the selection."""

    by_stage: dict[str, int]
    selected: int


def with_ranges(columns: Sequence[ColumnCounts], splits: Mapping[str, Split]) -> list[ColumnCounts]:
    """Return sources and languages, then turns and words by range, then the other columns.

    splits: values of the pool and of the selection by measure, as `distributions` gives them.
    """
    first: list[ColumnCounts] = []
    others: list[ColumnCounts] = []
    for column in columns:
        group = first if column.name in (SOURCE, LANGUAGE) else others
        group.append(column)
    turns = count_ranges("user turns", splits["user turns"], TURN_RANGES)
    words = count_ranges("words", splits["words"], WORD_RANGES)
    ranges = [column for column in (turns, words) if column.values]
    return first + ranges + others


def count_ranges(name: str, split: Split, starts: Sequence[int]) -> ColumnCounts:
    """Count whole numbers of the pool and of the selection by range.

    starts: the first number of each range, ascending; no number is below the first. Ranges without
    a row of the pool are left out.
    """
    edges = [*starts, np.inf]
    pool_counts, _ = np.histogram(split.pool, edges)
    selected_counts, _ = np.histogram(split.selected, edges)
    ranges = []
    for position, pool in enumerate(pool_counts.tolist()):
        if pool:
            title = _name_range(starts, position)
            selected = int(selected_counts[position])
            value = ValueCount(title, pool, selected)
            ranges.append(value)
    return ColumnCounts(name, ranges)


def _name_range(starts: Sequence[int], position: int) -> str:
    """Return "1", "3 to 4" or "10 or more"."""
    start = starts[position]
    if position == len(starts) - 1:
        return f"{start:,} or more"
    last = starts[position + 1] - 1
    if last == start:
        return f"{start:,}"
    return f"{start:,} to {last:,}"


def overview(
    ledger: pa.Table, columns: Sequence[ColumnCounts], splits: Mapping[str, Split]
) -> list[OverviewRow]:
    """Return what the pool and the selection are, a line each."""
    distinct = distinct_rows(ledger)
    selected = with_decision(distinct, "selected")
    rows = [_count_row("conversations", distinct.num_rows, selected.num_rows)]
    for column in columns:
        if column.name in COUNTED:
            values = [value for value in column.values if value.selected]
            title = COUNTED[column.name]
            row = _count_row(title, len(column.values), len(values))
            rows.append(row)
    averages = _average_rows(splits)
    rows.extend(averages)
    return rows


def _count_row(name: str, pool: int, selected: int) -> OverviewRow:
    """Return a row of the overview with both numbers in full, thousands apart."""
    return OverviewRow(name, f"{pool:,}", f"{selected:,}")


def _average_rows(splits: Mapping[str, Split]) -> Iterator[OverviewRow]:
    """Yield the averages of length, turns and scores that are known."""
    for name, (title, average, digits) in AVERAGES.items():
        split = splits[name]
        if len(split.pool) and len(split.selected):
            pool = average(split.pool)
            selected = average(split.selected)
            yield OverviewRow(title, f"{pool:,.{digits}f}", f"{selected:,.{digits}f}")


def find_lost(columns: Sequence[ColumnCounts], vanished: Sequence[VanishedValue]) -> LostValues:
    """Return every value that rows of the pool have and no selected row has, frequent ones first.

    vanished: those worth a warning, which come before all others. Columns without any selected row
    are left out.
    """
    warned = {(value.column, value.value) for value in vanished}
    lost: list[LostValue] = []
    for column in columns:
        values = _lost_of(column, warned)
        lost.extend(values)

    def rank(value: LostValue) -> tuple[bool, int, str, str]:
        """Return the key that sorts lost values: warnings first, then by rows of the pool.

        Column and value come last, so equal numbers have one order.
        """
        return not value.is_warning, -value.rows, value.column, value.value

    lost.sort(key=rank)
    more = max(0, len(lost) - MAX_LOST)
    return LostValues(lost[:MAX_LOST], more)


def _lost_of(column: ColumnCounts, warned: Container[tuple[str, str]]) -> Iterator[LostValue]:
    """Yield the values of a column that no selected row has.

    warned: column and value of those worth a warning.
    """
    total = sum_of("", column.values)
    for value in column.values:
        if total.selected and not value.selected:
            text = shorten(value.value)
            expected = value.pool * total.selected / total.pool
            yield LostValue(
                column=shorten(column.name),
                value=text,
                rows=value.pool,
                expected=f"{expected:,.1f}",
                is_warning=(column.name, text) in warned,
            )


def find_truncation(ledger: pa.Table, manifest: Manifest) -> Truncation:
    """Return how many rows a model read only in part, by stage and of the selection."""
    by_stage = {}
    for stage, rows in manifest.truncated.model_dump().items():
        if rows:
            by_stage[stage] = rows
    selected = with_decision(ledger, "selected")
    is_truncated = selected["truncated"]
    return Truncation(by_stage, pc.sum(is_truncated).as_py() or 0)
