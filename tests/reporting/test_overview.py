"""What stands at the top of a report, worked out by hand."""

from __future__ import annotations

import numpy as np

from deita_tasks.findings import VanishedValue
from deita_tasks.reporting.composition import LANGUAGE, SOURCE, ColumnCounts, ValueCount
from deita_tasks.reporting.figures import Split
from deita_tasks.reporting.overview import MAX_LOST, count_ranges, find_lost, with_ranges

TURNS = Split(np.array([1, 1, 2, 3, 4, 5, 12]), np.array([1, 4, 12]))
WORDS = Split(np.array([7, 49, 50, 2_000]), np.array([50]))


def test_numbers_are_counted_by_range() -> None:
    counts = count_ranges("turns", TURNS, (0, 1, 2, 3, 5, 10))
    assert counts.values == [
        ValueCount("1", 2, 1),
        ValueCount("2", 1, 0),
        ValueCount("3 to 4", 2, 1),
        ValueCount("5 to 9", 1, 0),
        ValueCount("10 or more", 1, 1),
    ]
    empty = Split(np.array([], np.int64), np.array([], np.int64))
    assert count_ranges("turns", empty, (0, 1)).values == []


def test_turns_and_words_stand_after_sources_and_languages() -> None:
    names = ("topic", LANGUAGE, SOURCE)
    columns = [ColumnCounts(name, [ValueCount("x", 1, 1)]) for name in names]
    ranged = with_ranges(columns, {"user turns": TURNS, "words": WORDS})
    assert [column.name for column in ranged] == [LANGUAGE, SOURCE, "user turns", "words", "topic"]
    words = ranged[3]
    assert words.values[0] == ValueCount("0 to 49", 2, 0)
    assert words.values[-1] == ValueCount("1,600 or more", 1, 0)


def test_lost_values_are_listed_warnings_first() -> None:
    """Ten of a hundred rows are selected: of 30 rows a random selection would have 3."""
    colours = [ValueCount("red", 65, 10), ValueCount("blue", 30, 0), ValueCount("green", 5, 0)]
    nothing = ColumnCounts("nothing is selected", [ValueCount("x", 9, 0)])
    warning = VanishedValue(column="colour", value="green", rows=5, expected=0.5)
    lost = find_lost([ColumnCounts("colour", colours), nothing], [warning])
    assert [tuple(value) for value in lost.shown] == [
        ("colour", "green", 5, "0.5", True),
        ("colour", "blue", 30, "3.0", False),
    ]
    assert lost.more == 0


def test_only_the_most_frequent_lost_values_are_shown() -> None:
    values = [ValueCount("kept", 1, 1)]
    values += [ValueCount(f"file {i}", i + 1, 0) for i in range(MAX_LOST + 7)]
    lost = find_lost([ColumnCounts(SOURCE, values)], [])
    assert len(lost.shown) == MAX_LOST
    assert lost.shown[0].rows == MAX_LOST + 7
    assert lost.more == 7
