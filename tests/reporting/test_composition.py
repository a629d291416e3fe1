"""The values of columns in pool and selection, worked out by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from deita_tasks.reporting.composition import (
    MAX_VALUES,
    NO_VALUE,
    ColumnCounts,
    ValueCount,
    ValueCounter,
    count_column,
    find_vanished,
    lay_out,
)


def column(**rows: tuple[int, int]) -> ColumnCounts:
    """column(red=(10, 2)): ten rows of the pool, two of them selected."""
    return ColumnCounts("colour", [ValueCount(name, *numbers) for name, numbers in rows.items()])


def test_a_column_is_counted_by_value_the_most_frequent_first() -> None:
    values = pa.chunked_array([["b", "a", "a"], ["b", "c", "a"]])
    selected = pa.array([True, False, True, True, False, False])
    assert count_column("x", values, selected) == ColumnCounts(
        "x", [ValueCount("a", 3, 1), ValueCount("b", 2, 2), ValueCount("c", 1, 0)]
    )


def test_scalars_are_counted_and_rows_without_a_value_too() -> None:
    counter = ValueCounter()
    for row, value in enumerate(["x", "x", 1, 1, True, True, None, "", "", 0.5, 0.5, None]):
        counter.add({"mixed": value} if row else {"mixed": value, "once": "y"}, row % 2 == 0)
    mixed, once = counter.counts()
    texts = ["(empty)", "0.5", "1", NO_VALUE, "true", "x"]
    assert mixed.values == [ValueCount(text, 2, 1) for text in texts]
    assert once.values == [ValueCount(NO_VALUE, 11, 5), ValueCount("y", 1, 1)]


def test_ids_lists_and_columns_of_many_values_are_left_out() -> None:
    counter = ValueCounter()
    for row in range(60):
        counter.add({"many": row % (MAX_VALUES + 1), "few": row % MAX_VALUES, "list": [1]}, False)
    assert [counts.name for counts in counter.counts()] == ["few"]
    counter = ValueCounter()
    for row in range(10):
        counter.add({"id": f"row-{row}", "half": row // 2}, False)
    assert [counts.name for counts in counter.counts()] == ["half"]


@pytest.mark.parametrize(
    ("counts", "vanished"),
    [
        # 30 of 300 are selected: 30 rows of a value would have 3 by chance.
        (column(a=(270, 30), b=(30, 0)), ["b"]),
        (column(a=(271, 30), b=(29, 0)), []),
        # Values that vanish together count together ...
        (column(a=(270, 30), b=(15, 0), c=(15, 0)), ["b", "c"]),
        # ... but not those of which there would hardly be a row.
        (column(a=(270, 30), **{f"rare{i}": (3, 0) for i in range(10)}), []),
        (column(a=(270, 29), b=(30, 1)), []),
        (column(a=(300, 0)), []),
    ],
)
def test_a_value_vanishes_where_chance_would_keep_it(
    counts: ColumnCounts, vanished: list[str]
) -> None:
    found = find_vanished(counts)
    assert [value.value for value in found] == vanished
    if vanished == ["b"]:
        assert (found[0].column, found[0].rows, found[0].expected) == ("colour", 30, 3.0)


def test_the_tables_show_shares_and_what_vanished() -> None:
    counts = column(a=(270, 30), b=(30, 0))
    laid_out = lay_out(
        [counts, ColumnCounts("same", [ValueCount("x", 300, 30)])], find_vanished(counts)
    )
    assert laid_out.constants == [("same", "x")]
    (table,) = laid_out.tables
    assert table.warning == "WARNING: no selected row has b."
    assert [tuple(row) for row in table.rows] == [
        ("a", 270, "90.0%", 30, "100.0%", False),
        ("b", 30, "10.0%", 0, "0.0%", True),
    ]


def test_the_rest_of_many_files_is_one_line() -> None:
    values = [ValueCount(f"file {i:02}", 2, 1) for i in range(MAX_VALUES + 3)]
    (table,) = lay_out([ColumnCounts("source file", values)], []).tables
    assert len(table.rows) == MAX_VALUES + 1
    assert table.rows[-1][:2] == ("3 more", 6)
    assert table.rows[-1].selected == 3
