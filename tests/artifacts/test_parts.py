"""Scores and vectors by row: over a local folder, memory:// and S3."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pyarrow as pa
import pytest

from deita_tasks import storage
from deita_tasks.artifacts.parts import (
    WIDTH,
    PartSet,
    Shard,
    part_digest,
    place_vectors,
    read_plan,
    score_table,
    vector_problems,
    vector_table,
    vector_width,
)
from deita_tasks.errors import DamagedArtifact, MissingFile, StorageError
from deita_tasks.records import ModelOutput

pytest_plugins = ["tests.support.s3_fixtures"]


def ids_of(*numbers: int) -> list[str]:
    return [f"{number:032x}" for number in numbers]


def scored(*numbers: int) -> pa.Table:
    """A part in which the score of row `n` is 1 + n/1000."""
    values = np.array([1 + number / 1000 for number in numbers], np.float32)
    return score_table(
        ids_of(*numbers), [1] * len(numbers), ModelOutput(values, np.zeros(len(numbers), np.int32))
    )


def embedded(*numbers: int) -> pa.Table:
    """A part in which the vector of row `n` is (n, -n)."""
    values = np.array([[number, -number] for number in numbers], np.float32)
    return vector_table(ids_of(*numbers), ModelOutput(values, np.zeros(len(numbers), np.int32)))


def add(family: PartSet, table: pa.Table) -> str:
    digest = part_digest(table["id"])
    family.write(digest, table)
    return digest


def family_of(place: str, **contract: object) -> PartSet:
    return PartSet.of(place, "scores/quality", contract or {"backend": "test"})


def plan(family: PartSet, store: str, *numbers: int, shard_rows: int | None = None):
    return family.plan(store, pa.array(ids_of(*numbers)), np.arange(len(numbers)) * 10, shard_rows)


def test_a_family_says_what_it_stands_for(place):
    family, other = family_of(place, model="a"), family_of(place, model="b")
    assert family.uri != other.uri
    assert storage.read_json(f"{family.uri}/fingerprint.json") == {"model": "a"}
    assert family_of(place, model="a") == family


def test_only_what_is_missing_is_planned(place):
    family = family_of(place)
    present, missing = plan(family, place, 1, 2, 3, shard_rows=2)
    assert present == []
    assert [shard.rows for shard in missing] == [2, 1]
    assert [read_plan(shard)["position"].to_pylist() for shard in missing] == [[0, 10], [20]]
    assert [shard.digest for shard in missing] == [
        part_digest(pa.array(ids_of(1, 2))),
        part_digest(pa.array(ids_of(3))),
    ]
    one = add(family, scored(1, 2))
    present, missing = plan(family, place, 3, 2, 4, 1, shard_rows=2)  # another order, another file
    assert present == [Shard(one, 2)]
    assert read_plan(missing[0])["id"].to_pylist() == ids_of(3, 4)
    add(family, scored(3, 4, 5))
    present, missing = plan(family, place, 4, 1)
    assert len(present) == 2
    assert missing == []
    assert plan(family, place, 6)[0] == []  # parts in which nothing is wanted are not asked for


def test_a_part_is_named_by_its_ids_whatever_their_order():
    assert part_digest(pa.array(ids_of(1, 2))) == part_digest(pa.array(ids_of(2, 1)))
    assert part_digest(pa.array(ids_of(1, 2))) != part_digest(pa.array(ids_of(1, 2, 3)))


@pytest.mark.parametrize("how", ["truncated", "empty", "deleted", "another table"])
def test_a_bad_part_costs_its_own_rows(place, caplog, how):
    family = family_of(place)
    good, bad = add(family, scored(1, 2)), add(family, scored(3, 4))
    uri = family.part(bad)
    with storage.open_read(uri) as handle:
        content = handle.read()
    if how == "deleted":
        storage.remove(uri)
    elif how == "another table":
        storage.write_table(uri, pa.table({"x": [1]}))
    else:
        storage.write_bytes(uri, b"" if how == "empty" else content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        present, missing = plan(family, place, 1, 2, 3, 4)
    assert present == [Shard(good, 2)]
    assert [shard.digest for shard in missing] == [bad]  # so that the new one takes its place
    assert ("left out and its rows are computed again" in caplog.text) == (how != "deleted")
    add(family, scored(3, 4))
    assert family.gather([good, bad])["id"].to_pylist() == ids_of(1, 2, 3, 4)


def test_a_damaged_page_is_noticed_on_a_local_disk(tmp_path):
    family = family_of(str(tmp_path))
    digest = add(family, scored(*range(2_000)))
    path = tmp_path / family.part(digest)
    content = bytearray(path.read_bytes())
    content[len(content) - 4_000] ^= 1  # in the values, behind the ids
    path.write_bytes(content)
    assert family.index() == {}


def test_a_part_damaged_in_its_values_goes_and_is_computed_again(place):
    """An index over an object store reads only ids, so such a part would be named, and would fail,
    in every run.
    """
    family = family_of(place)
    digest, whole = add(family, scored(*range(2_000))), add(family, scored(3_000))
    with storage.open_read(family.part(digest)) as handle:
        content = bytearray(handle.read())
    content[len(content) - 4_000] ^= 1
    storage.write_bytes(family.part(digest), bytes(content))
    with pytest.raises(
        StorageError, match="it is removed: run again, and its rows will be computed"
    ):
        family.gather([whole, digest])
    assert family.listed() == [whole]
    _, missing = plan(family, place, *range(2_000), shard_rows=2_000)
    assert [shard.digest for shard in missing] == [digest]


def test_what_is_no_damage_removes_nothing(place, monkeypatch):
    """No memory for a row group, or a part that another run has put in the place of the damaged one
    since.
    """
    family = family_of(place)
    digest = add(family, scored(1, 2))
    groups = PartSet._groups

    def fails(error):
        def once(self, *given):
            monkeypatch.setattr(PartSet, "_groups", groups)
            raise error
            yield

        monkeypatch.setattr(PartSet, "_groups", once)

    fails(pa.lib.ArrowMemoryError("no room"))
    with pytest.raises(MemoryError):
        family.gather([digest])
    fails(DamagedArtifact("half of it"))
    with pytest.raises(StorageError, match="read once more it is whole: run again"):
        family.gather([digest])
    assert family.listed() == [digest]
    content = storage.open_read(family.part(digest)).read()
    storage.write_bytes(family.part(digest), content[:-9])
    monkeypatch.setattr(
        storage, "remove", lambda uri: (_ for _ in ()).throw(StorageError("denied"))
    )
    with pytest.raises(
        StorageError, match="remove it, which is not possible from here \\(denied\\)"
    ):
        family.gather([digest])


def test_arrow_without_memory_is_no_damage(tmp_path):
    storage.write_table(str(tmp_path / "a.parquet"), pa.table({"a": [1]}))
    with pytest.raises(MemoryError), storage.parquet_file(str(tmp_path / "a.parquet")):
        raise pa.lib.ArrowMemoryError("no room")


def test_a_damaged_part_that_nobody_asked_for_is_never_read(place):
    """Rows of a damaged part are computed in other shards; its file stays and is left alone."""
    family = family_of(place)
    damaged = add(family, scored(1, 2, 3))
    storage.write_bytes(family.part(damaged), b"PAR1 nonsense PAR1")
    _, missing = plan(family, place, 3, 4)
    digest = add(family, scored(3, 4))
    assert [shard.digest for shard in missing] == [digest]
    present, missing = plan(family, place, 3, 4)
    assert present == [Shard(digest, 2)]
    assert missing == []
    assert family.gather([digest])["values"].to_pylist() == [
        pytest.approx([1.003]),
        pytest.approx([1.004]),
    ]


def test_other_files_in_the_folder_are_no_parts(place):
    family = family_of(place)
    digest = add(family, scored(1))
    for name in (
        "x.parquet",
        "part-.parquet",
        "part-zz.parquet",
        f"part-{digest}.parquet.bak",
        f".part-{digest}.parquet.draft",
    ):
        storage.write_bytes(f"{family.uri}/{name}", b"")
    assert list(family.index()) == family.listed() == [digest]


def test_an_id_in_several_parts_comes_once(place):
    family = family_of(place)
    digests = [add(family, scored(1, 2)), add(family, scored(2, 3)), add(family, scored(1, 2, 3))]
    table = family.gather(digests)
    assert sorted(table["id"].to_pylist()) == ids_of(1, 2, 3)
    by_id = dict(zip(table["id"].to_pylist(), table["values"].to_pylist(), strict=True))
    assert [by_id[id] for id in ids_of(1, 2, 3)] == [
        pytest.approx([1.001]),
        pytest.approx([1.002]),
        pytest.approx([1.003]),
    ]
    present, missing = plan(family, place, 1, 2, 3)
    assert {shard.digest for shard in present} == set(digests)
    assert missing == []


def merged_meanwhile(family: PartSet, *old: str, into: pa.Table) -> None:
    """As compaction does it: the new part first, then away with the old ones."""
    add(family, into)
    for digest in old:
        storage.remove(family.part(digest))


def test_a_part_that_was_merged_while_we_read_is_found_again(place):
    family = family_of(place)
    old = [add(family, scored(1, 2)), add(family, scored(3))]
    kept = add(family, scored(4))
    merged_meanwhile(family, *old, into=scored(1, 2, 3))
    table = family.gather([*old, kept])
    assert sorted(table["id"].to_pylist()) == ids_of(1, 2, 3, 4)
    assert dict(zip(table["id"].to_pylist(), table["values"].to_pylist(), strict=True))[
        ids_of(3)[0]
    ] == pytest.approx([1.003])


def test_vectors_are_placed_by_id(place):
    family = PartSet.of(place, "embeddings", {"backend": "test"})
    table = vector_table(
        ids_of(7, 8),
        ModelOutput(
            np.array([[7, -7], [np.nan, np.nan]], np.float32),
            np.zeros(2, np.int32),
            problems={1: "not finite"},
        ),
    )
    digests = [add(family, embedded(3, 1)), add(family, table)]
    target = np.empty((4, 2), np.float32)
    place_vectors(family, digests, ids_of(1, 8, 7, 3), target)
    assert np.array_equal(
        target, np.array([[1, -1], [np.nan, np.nan], [7, -7], [3, -3]], np.float32), equal_nan=True
    )
    assert vector_width(family, digests, ids_of(7)) == 2
    assert vector_width(PartSet.of(place, "embeddings", {"backend": "none"}), [], ids_of(7)) == 0


def test_a_vector_of_another_width_than_most_has_a_problem_and_no_place(place):
    family = PartSet.of(place, "embeddings", {"backend": "test"})
    wide = vector_table(
        ids_of(5), ModelOutput(np.array([[1, 2, 3]], np.float32), np.zeros(1, np.int32))
    )
    none = vector_table(
        ids_of(6),
        ModelOutput(np.array([[np.nan]], np.float32), np.zeros(1, np.int32), problems={0: "null"}),
    )
    digests = [add(family, wide), add(family, embedded(1, 2)), add(family, none)]
    told = vector_problems(family.gather(digests, ["id", "problem", WIDTH]))
    assert told.to_pylist() == ["its vector has 3 numbers, where most have 2", None, None, "null"]
    assert vector_width(family, digests, ids_of(1, 2, 5, 6)) == 2
    assert vector_width(family, digests, ids_of(5, 6)) == 3
    assert vector_width(family, digests, ids_of(6)) == 0
    target = np.empty((4, 2), np.float32)
    place_vectors(family, digests, ids_of(5, 2, 6, 1), target)
    assert np.array_equal(
        target, np.array([[np.nan] * 2, [2, -2], [np.nan] * 2, [1, -1]], np.float32), equal_nan=True
    )


def test_vectors_of_a_part_that_was_merged_or_lost(place):
    family = PartSet.of(place, "embeddings", {"backend": "test"})
    old = [add(family, embedded(1)), add(family, embedded(2))]
    merged_meanwhile(family, *old, into=embedded(1, 2))
    target = np.empty((2, 2), np.float32)
    assert vector_width(family, old, ids_of(2)) == 2
    place_vectors(family, old, ids_of(2, 1), target)
    assert target.tolist() == [[2, -2], [1, -1]]
    storage.remove(family.part(family.listed()[0]))
    with pytest.raises(
        StorageError, match="2 of 2 rows are in no part; run again: they will be computed"
    ):
        place_vectors(family, old, ids_of(2, 1), target)  # and never a vector that is made up


def test_a_plan_that_was_removed(place):
    family = family_of(place)
    _, (shard,) = plan(family, place, 1)
    storage.remove(f"{place}/plans")
    with pytest.raises(MissingFile):
        read_plan(shard)


def test_two_writers_and_a_reader_at_once(place):
    """Runs over the same store write the same parts: whoever reads finds a whole one."""
    family = family_of(place)
    table = scored(*range(300))
    digest = add(family, table)
    problems: list[BaseException] = []

    def again(times: int) -> None:
        try:
            for _ in range(times):
                add(family, table)
        except BaseException as error:
            problems.append(error)

    writers = [threading.Thread(target=again, args=(8,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert family.gather([digest])["id"].to_pylist() == ids_of(*range(300))
    for writer in writers:
        writer.join()
    assert problems == []


def test_scores_of_several_turns_and_a_turn_without():
    measured = ModelOutput(
        np.array([1, 2, np.nan, 4, 5], np.float32),
        np.array([0, 3, 0, 1, 1], np.int32),
        problems={2: "no score"},
    )
    table = score_table(ids_of(1, 2, 3, 4), [2, 1, 0, 2], measured)
    assert table["values"].to_pylist() == [[1, 2], None, [], [4, 5]]
    assert table["cut"].to_pylist() == [3, 0, 0, 2]
    assert table["problem"].to_pylist() == [None, "turn 1: no score", None, None]


def test_index_of_many_parts_is_quick(tmp_path):
    """What is there is looked up without a pass over the pool for every part."""
    import time

    family = family_of(str(tmp_path))
    numbers = np.arange(60_000).reshape(60, 1_000)
    for row in numbers:
        add(family, scored(*row))
    start = time.perf_counter()
    present, missing = plan(family, str(tmp_path), *numbers.reshape(-1)[::-1], 99_999)
    assert len(present) == 60
    assert sum(shard.rows for shard in missing) == 1
    assert time.perf_counter() - start < 5
