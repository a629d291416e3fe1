"""Part sets: over a local folder, memory:// and S3."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from deita_tasks import storage
from deita_tasks.artifacts import parts
from deita_tasks.artifacts.parts import PartSet, ids_digest
from deita_tasks.artifacts.shards import Shard
from deita_tasks.errors import DamagedArtifact, StorageError
from tests.support.part_sets import add, ids_of, merge, plan, score_set, scores_of, select

pytest_plugins = ["tests.support.s3_fixtures"]


def test_a_part_set_says_what_it_stands_for(place):
    part_set = score_set(place, model="a")
    assert part_set.uri != score_set(place, model="b").uri
    assert storage.read_json(f"{part_set.uri}/fingerprint.json") == {"model": "a"}
    assert score_set(place, model="a") == part_set


def test_a_shard_is_named_by_its_ids_in_any_order():
    assert ids_digest(pa.array(ids_of(1, 2))) == ids_digest(pa.array(ids_of(2, 1)))
    assert ids_digest(pa.array(ids_of(1, 2))) != ids_digest(pa.array(ids_of(1, 2, 3)))


@pytest.mark.parametrize("damage", ["truncated", "empty", "deleted", "another table"])
def test_a_bad_part_costs_its_own_rows(place, caplog, damage):
    part_set = score_set(place)
    good = add(part_set, scores_of(1, 2))
    bad = add(part_set, scores_of(3, 4))
    uri = part_set.part(bad)
    with storage.open_read(uri) as handle:
        content = handle.read()
    if damage == "deleted":
        storage.remove(uri)
    elif damage == "another table":
        storage.write_table(uri, pa.table({"x": [1]}))
    else:
        storage.write_bytes(uri, b"" if damage == "empty" else content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        shards = plan(part_set, place, 1, 2, 3, 4)
    assert [shard.part for shard in shards.present] == [good]
    assert [shard.digest for shard in shards.missing] == [shard_digest(3, 4)]
    is_named = "leaving out a damaged part; its rows are computed again" in caplog.text
    assert is_named == (damage != "deleted")
    add(part_set, scores_of(3, 4))
    assert select(part_set, good, bad).gather()["id"].to_pylist() == ids_of(1, 2, 3, 4)


def shard_digest(*numbers: int) -> str:
    return ids_digest(pa.array(ids_of(*numbers)))


def test_a_damaged_page_is_noticed_on_a_local_disk(tmp_path):
    part_set = score_set(str(tmp_path))
    digest = add(part_set, scores_of(*range(2_000)))
    path = tmp_path / part_set.part(digest)
    content = bytearray(path.read_bytes())
    content[len(content) - 4_000] ^= 1  # in the values, behind the ids
    path.write_bytes(content)
    assert part_set.index() == {}


def test_a_part_damaged_in_its_values_goes_and_is_computed_again(place):
    """An index over an object store reads only ids, so it would name the part in every run."""
    part_set = score_set(place)
    digest = add(part_set, scores_of(*range(2_000)))
    intact = add(part_set, scores_of(3_000))
    with storage.open_read(part_set.part(digest)) as handle:
        content = bytearray(handle.read())
    content[len(content) - 4_000] ^= 1
    storage.write_bytes(part_set.part(digest), bytes(content))
    message = "it is removed: run again, and its rows will be computed"
    with pytest.raises(StorageError, match=message):
        select(part_set, intact, digest).gather()
    assert part_set.digests() == [intact]
    missing = plan(part_set, place, *range(2_000), shard_rows=2_000).missing
    assert [shard.digest for shard in missing] == [shard_digest(*range(2_000))]


def fail_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let the next reading of a part fail."""
    row_groups = PartSet._row_groups

    def fail(*_: object):
        monkeypatch.setattr(PartSet, "_row_groups", row_groups)
        raise error
        yield

    monkeypatch.setattr(PartSet, "_row_groups", fail)


def test_without_memory_for_a_row_group_no_part_is_removed(place, monkeypatch):
    part_set = score_set(place)
    digest = add(part_set, scores_of(1, 2))
    fail_once(monkeypatch, pa.lib.ArrowMemoryError("no room"))
    with pytest.raises(MemoryError):
        select(part_set, digest).gather()
    assert part_set.digests() == [digest]


def test_a_part_that_another_run_has_repaired_is_not_removed(place, monkeypatch):
    part_set = score_set(place)
    digest = add(part_set, scores_of(1, 2))
    fail_once(monkeypatch, DamagedArtifact("half of it"))
    with pytest.raises(StorageError, match="a second reading found no damage: run again"):
        select(part_set, digest).gather()
    assert part_set.digests() == [digest]


def test_a_damaged_part_that_may_not_be_removed(place, monkeypatch):
    part_set = score_set(place)
    digest = add(part_set, scores_of(1, 2))
    with storage.open_read(part_set.part(digest)) as handle:
        content = handle.read()
    storage.write_bytes(part_set.part(digest), content[:-9])

    def refuse(uri: str) -> None:
        raise StorageError("denied")

    monkeypatch.setattr(storage, "remove", refuse)
    message = r"remove it, which is not possible from here \(denied\)"
    with pytest.raises(StorageError, match=message):
        select(part_set, digest).gather()


def test_a_damaged_part_that_nobody_needs_is_never_read(place):
    """Rows of a damaged part are computed in other shards; its file stays and is left alone."""
    part_set = score_set(place)
    damaged = add(part_set, scores_of(1, 2, 3))
    storage.write_bytes(part_set.part(damaged), b"PAR1 nonsense PAR1")
    missing = plan(part_set, place, 3, 4).missing
    digest = add(part_set, scores_of(3, 4))
    assert [shard.digest for shard in missing] == [shard_digest(3, 4)]
    shards = plan(part_set, place, 3, 4)
    assert shards.present == [Shard(digest=shard_digest(3, 4), rows=2, part=digest)]
    assert shards.missing == []
    assert select(part_set, digest).gather()["values"].to_pylist() == [
        pytest.approx([1.003]),
        pytest.approx([1.004]),
    ]


def test_other_files_in_the_folder_are_no_parts(place):
    part_set = score_set(place)
    digest = add(part_set, scores_of(1))
    for name in (
        "x.parquet",
        "part-.parquet",
        "part-zz.parquet",
        f"part-{digest}.parquet.bak",
        f".part-{digest}.parquet.draft",
    ):
        storage.write_bytes(f"{part_set.uri}/{name}", b"")
    assert list(part_set.index()) == part_set.digests() == [digest]


def values_by_id(table: pa.Table) -> dict[str, list[float]]:
    return dict(zip(table["id"].to_pylist(), table["values"].to_pylist(), strict=True))


def test_an_id_in_several_parts_comes_once(place):
    part_set = score_set(place)
    digests = [
        add(part_set, scores_of(1, 2)),
        add(part_set, scores_of(2, 3)),
        add(part_set, scores_of(1, 2, 3)),
    ]
    table = select(part_set, *digests).gather()
    assert sorted(table["id"].to_pylist()) == ids_of(1, 2, 3)
    values = values_by_id(table)
    assert [values[id] for id in ids_of(1, 2, 3)] == [
        pytest.approx([1.001]),
        pytest.approx([1.002]),
        pytest.approx([1.003]),
    ]
    shards = plan(part_set, place, 1, 2, 3)
    assert {shard.part for shard in shards.present} == set(digests)
    assert shards.missing == []


def test_a_part_that_was_merged_while_we_read_is_found_again(place):
    part_set = score_set(place)
    old = [add(part_set, scores_of(1, 2)), add(part_set, scores_of(3))]
    kept = add(part_set, scores_of(4))
    merge(part_set, *old, into=scores_of(1, 2, 3))
    table = select(part_set, *old, kept).gather()
    assert sorted(table["id"].to_pylist()) == ids_of(1, 2, 3, 4)
    assert values_by_id(table)[ids_of(3)[0]] == pytest.approx([1.003])


def test_two_writers_and_a_reader_at_once(place):
    """Runs over the same store write the same parts: a reader finds a complete one."""
    part_set = score_set(place)
    table = scores_of(*range(300))
    digest = add(part_set, table)
    errors: list[BaseException] = []

    def write(times: int) -> None:
        try:
            for _ in range(times):
                add(part_set, table)
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(8,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert select(part_set, digest).gather()["id"].to_pylist() == ids_of(*range(300))
    for writer in writers:
        writer.join()
    assert errors == []


def test_tables_come_in_parts_as_time_passes(place, monkeypatch):
    part_set = score_set(place)
    monkeypatch.setattr(parts, "SECONDS_PER_PART", 0.0)
    digests = part_set.write_as_they_come("1" * 32, (scores_of(number) for number in (3, 1, 2)))
    assert part_set.digests_of("1" * 32) == sorted(digests)
    assert len(digests) == 3
    monkeypatch.setattr(parts, "SECONDS_PER_PART", 60.0)
    (whole,) = part_set.write_as_they_come("2" * 32, (scores_of(number) for number in (3, 1, 2)))
    (other,) = part_set.write_as_they_come("2" * 32, (scores_of(number) for number in (2, 3, 1)))
    assert whole == other, "in the same order, whichever row came first"
    assert sorted(part_set.read(whole)["id"].to_pylist()) == ids_of(1, 2, 3)


def test_what_came_before_an_error_is_kept(place):
    part_set = score_set(place)

    def tables() -> Iterator[pa.Table]:
        yield scores_of(1)
        yield scores_of(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        part_set.write_as_they_come("1" * 32, tables())
    shards = plan(part_set, place, 1, 2, 3)
    assert [shard.rows for shard in shards.present] == [2]
    assert shards.rows_to_compute == 1
