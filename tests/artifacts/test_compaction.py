"""Small parts become few large ones: over a local folder, memory:// and S3."""

from __future__ import annotations

from deita_tasks import storage
from deita_tasks.artifacts.compaction import compact, merge_parts
from deita_tasks.artifacts.inventory import list_artifacts
from deita_tasks.artifacts.parts import StageParts
from tests.support.small_store import add_part, conversations, make_store, part_set, problems

pytest_plugins = ["tests.support.s3_fixtures"]


def values_by_id(parts: StageParts) -> dict[str, list[float]]:
    table = parts.gather()
    return dict(zip(table["id"].to_pylist(), table["values"].to_pylist(), strict=True))


def test_small_parts_become_few(place):
    make_store(place)
    for number in range(10, 14):
        add_part(place, "embedding", number, number + 1)  # each shares a row with the next
    vectors = part_set(place, "embedding")
    before = values_by_id(StageParts(part_set=vectors, digests=vectors.digests()))
    assert {merge.folder: (merge.before, merge.after) for merge in compact(place)} == {
        folder_of(place, "scores/complexity"): (2, 1),
        folder_of(place, "scores/quality"): (2, 1),
        folder_of(place, "embeddings"): (6, 1),
    }
    (merged,) = vectors.digests()
    stage_parts = StageParts(part_set=vectors, digests=[merged])
    assert values_by_id(stage_parts) == before
    expected = [row.id for row in conversations(*range(1, 5), *range(10, 15))]
    assert sorted(stage_parts.gather()["id"].to_pylist()) == sorted(expected)
    assert problems(place) == {}
    assert list(compact(place)) == []


def folder_of(store: str, kind: str) -> str:
    (folder,) = [artifact.folder for artifact in list_artifacts(store) if artifact.kind == kind]
    return folder


def test_large_parts_and_damaged_ones_are_left_alone(place):
    large = add_part(place, "quality", *range(1, 9))
    damaged = add_part(place, "quality", 20, 21)
    storage.write_bytes(damaged, b"nonsense")
    for number in range(30, 37):
        add_part(place, "quality", number)
    (merge,) = compact(place, merged_rows=5)
    assert (merge.before, merge.after) == (8, 3)  # the large one, and 7 rows as 5 + 2
    assert storage.exists(large)
    assert storage.exists(damaged)


def test_rows_that_come_twice_are_merged_at_once(tmp_path):
    """Groups are as large as their distinct rows, else the merged parts would be merged again."""
    store = str(tmp_path)
    for rows in ([1, 2], [2, 1], [3, 4], [4, 3]):
        add_part(store, "quality", *rows)
    (merge,) = compact(store, merged_rows=5)
    assert (merge.before, merge.after) == (4, 1)
    assert list(compact(store, merged_rows=5)) == []


def test_a_reader_beside_compaction_finds_all_rows(place):
    make_store(place)
    scores = part_set(place, "quality")
    planned = scores.digests()
    list(compact(place))
    assert scores.digests() != planned
    assert StageParts(part_set=scores, digests=planned).gather().num_rows == 4


def test_a_part_that_goes_while_it_is_merged_stops_the_merge(place, caplog):
    make_store(place)
    scores = part_set(place, "quality")
    digests = scores.digests()
    parts = scores.index()
    storage.remove(scores.part(digests[1]))
    assert merge_parts(scores, "0" * 32, list(parts)) == list(parts)
    assert scores.digests() == digests[:1]
    assert "parts left as they are" in caplog.text
