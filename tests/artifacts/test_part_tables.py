"""The tables in parts, and vectors placed by id: over a local folder, memory:// and S3."""

from __future__ import annotations

import numpy as np
import pytest

from deita_tasks import storage
from deita_tasks.artifacts.part_tables import (
    place_vectors,
    score_table,
    vector_problems,
    vector_table,
    vector_width,
)
from deita_tasks.artifacts.parts import WIDTH
from deita_tasks.errors import StorageError
from deita_tasks.records import ModelOutput
from tests.support.part_sets import add, ids_of, merge, select, vector_set, vectors_of

pytest_plugins = ["tests.support.s3_fixtures"]


def test_scores_of_several_turns_and_a_turn_without():
    output = ModelOutput(
        np.array([1, 2, np.nan, 4, 5], np.float32),
        np.array([0, 3, 0, 1, 1], np.int32),
        problems={2: "no score"},
    )
    table = score_table(ids_of(1, 2, 3, 4), [2, 1, 0, 2], output)
    assert table.column_names == ["id", "values", "cut", "problem"]
    assert table["values"].to_pylist() == [[1, 2], None, [], [4, 5]]
    assert table["cut"].to_pylist() == [3, 0, 0, 2]
    assert table["problem"].to_pylist() == [None, "turn 1: no score", None, None]


def test_vectors_are_placed_by_id(place):
    part_set = vector_set(place)
    output = ModelOutput(
        np.array([[7, -7], [np.nan, np.nan]], np.float32),
        np.zeros(2, np.int32),
        problems={1: "not finite"},
    )
    table = vector_table(ids_of(7, 8), output)
    parts = select(part_set, add(part_set, vectors_of(3, 1)), add(part_set, table))
    target = np.empty((4, 2), np.float32)
    place_vectors(parts, ids_of(1, 8, 7, 3), target)
    expected = np.array([[1, -1], [np.nan, np.nan], [7, -7], [3, -3]], np.float32)
    assert np.array_equal(target, expected, equal_nan=True)
    assert vector_width(parts, ids_of(7)) == 2
    assert vector_width(select(vector_set(place, "none")), ids_of(7)) == 0


def test_a_vector_of_another_width_than_most_has_a_problem_and_no_place(place):
    part_set = vector_set(place)
    wide = ModelOutput(np.array([[1, 2, 3]], np.float32), np.zeros(1, np.int32))
    none = ModelOutput(
        np.array([[np.nan]], np.float32), np.zeros(1, np.int32), problems={0: "null"}
    )
    parts = select(
        part_set,
        add(part_set, vector_table(ids_of(5), wide)),
        add(part_set, vectors_of(1, 2)),
        add(part_set, vector_table(ids_of(6), none)),
    )
    problems = vector_problems(parts.gather(["id", "problem", WIDTH]))
    assert problems.to_pylist() == [
        "its vector has 3 numbers, where most have 2",
        None,
        None,
        "null",
    ]
    assert vector_width(parts, ids_of(1, 2, 5, 6)) == 2
    assert vector_width(parts, ids_of(5, 6)) == 3
    assert vector_width(parts, ids_of(6)) == 0
    target = np.empty((4, 2), np.float32)
    place_vectors(parts, ids_of(5, 2, 6, 1), target)
    expected = np.array([[np.nan] * 2, [2, -2], [np.nan] * 2, [1, -1]], np.float32)
    assert np.array_equal(target, expected, equal_nan=True)


def test_vectors_of_a_part_that_was_merged_or_lost(place):
    part_set = vector_set(place)
    old = [add(part_set, vectors_of(1)), add(part_set, vectors_of(2))]
    merge(part_set, *old, into=vectors_of(1, 2))
    parts = select(part_set, *old)
    target = np.empty((2, 2), np.float32)
    assert vector_width(parts, ids_of(2)) == 2
    place_vectors(parts, ids_of(2, 1), target)
    assert target.tolist() == [[2, -2], [1, -1]]
    storage.remove(part_set.part(part_set.digests()[0]))
    message = "2 of 2 rows are in no part; run again: they will be computed"
    with pytest.raises(StorageError, match=message):
        place_vectors(parts, ids_of(2, 1), target)  # and never a vector that is made up
