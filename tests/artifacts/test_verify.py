"""Checks of a store: over a local folder, memory:// and S3."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deita_tasks import storage
from deita_tasks.artifacts.garbage import find_garbage
from deita_tasks.artifacts.inventory import list_artifacts, summarise
from deita_tasks.artifacts.parts import ids_digest
from deita_tasks.artifacts.runs import RunMark
from deita_tasks.artifacts.shards import plan_shards
from deita_tasks.artifacts.task_results import StoredResult
from deita_tasks.artifacts.verify import verify
from tests.support.small_store import add_part, make_pool, make_store, part_set, problems

pytest_plugins = ["tests.support.s3_fixtures"]


def test_a_whole_store(place):
    make_store(place)
    assert problems(place) == {}
    # a pool and a selection; of each fingerprint its description and two parts
    assert len(list(verify(place))) == 2 + 3 * 3


@pytest.mark.parametrize(
    "name",
    [
        "rows-00000.parquet",
        "quarantine.parquet",
        "decisions.parquet",
        "kept.parquet",
        "fingerprint.json",
    ],
)
@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_all_damage_is_noticed(tmp_path, name, damage):
    store = tmp_path / "store"
    make_store(str(store))
    file = sorted(store.rglob(f"*{name}*"))[0]
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[len(content) // 3] ^= 4
    else:
        del content[len(content) // 2 :]
    file.write_bytes(content)
    (damaged,) = problems(str(store))
    assert damaged in (str(file.relative_to(store)), str(file.parent.relative_to(store)))


def test_a_flipped_bit_in_a_part_is_noticed_or_changes_nothing(tmp_path):
    """A part has no digest beside it, only checksums of its pages and a name made of its ids."""
    store = str(tmp_path)
    path = Path(add_part(store, "quality", *range(1, 60)))
    content = path.read_bytes()
    table = storage.read_table(str(path))
    positions = range(0, len(content), 23)
    noticed = 0
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        if problems(store):
            noticed += 1
        else:
            assert storage.read_table(str(path)).equals(table), position
    assert noticed > len(positions) / 2


@pytest.mark.parametrize("kind", ["plans", "part", "part of an early version"])
def test_a_footer_that_asks_for_what_arrow_does_not_have_is_damage(tmp_path, kind):
    """Arrow raises NotImplementedError for integers of 128 bits and the like."""
    store = str(tmp_path)
    path = Path(add_part(store, "quality", 1, 2, 3))
    if kind == "part of an early version":
        ids = storage.read_table(str(path), ["id"])["id"]
        path = path.rename(path.with_name(f"part-{ids_digest(ids)}.parquet"))
    elif kind == "plans":
        pool = make_pool(store, 1, 2, 3, 4)
        plan_shards(part_set(store, "quality"), store, *pool.distinct, 2)
        (path,) = (tmp_path / "plans").iterdir()
    content = path.read_bytes()
    content_table = storage.read_table(str(path))
    for position in range(len(content) - 700, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        assert len(list(summarise(store))) == len(list_artifacts(store))
        find_garbage(store, timedelta(0))
        found = problems(store)
        assert list(found) in ([str(path.relative_to(store))], [])
        assert found or storage.read_table(str(path)).equals(content_table), position


@pytest.mark.parametrize("kind", ["results", "runs"])
def test_damaged_notes_are_named(tmp_path, kind):
    store = str(tmp_path)
    if kind == "results":
        uri = f"{store}/results/quality-{'1' * 32}-{'2' * 32}"
        storage.write_record(uri, StoredResult(value={"part": "3", "rows": 4}))
        storage.write_json(f"{store}/results/load-pool-{'1' * 32}", {"metadata": {}, "result": ""})
    else:
        uri = f"{store}/runs/{'1' * 32}.json"
        mark = RunMark(
            begun=datetime.now(UTC), pool="p", fingerprints={"quality": "q"}, selection="s"
        )
        storage.write_record(uri, mark)
    assert problems(store) == {}
    content = Path(uri).read_bytes()
    for position in range(0, len(content) - 1, 5):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 7)
        Path(uri).write_bytes(damaged)
        assert list(problems(store)) == [uri.removeprefix(f"{store}/")], position


def test_a_bit_that_a_disk_loses_is_noticed(tmp_path):
    """Size and time of the file stay the same, by which a digest is remembered."""
    store = str(tmp_path)
    path = Path(add_part(store, "quality", 1, 2))
    os.utime(path, (0, 0))
    assert problems(store) == {}
    content = bytearray(path.read_bytes())
    content[99] ^= 1
    path.write_bytes(content)
    os.utime(path, (0, 0))
    assert list(problems(store)) == [str(path.relative_to(store))]


def test_deleted_files_and_a_wrong_name(place):
    selection = make_store(place)
    storage.remove(f"{selection}/kept.parquet")
    part = add_part(place, "quality", 1)
    with storage.open_read(part) as handle:
        content = handle.read()
    storage.remove(part)
    storage.write_bytes(f"{part.rsplit('/', 1)[0]}/part-{'0' * 32}.parquet", content)
    assert sorted(problem.split(": ")[1] for problem in problems(place).values()) == [
        "its ids are not those that its name stands for",
        "missing",
    ]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("pools", {"version": 2, "good": 4}),
        ("pools", []),
        ("selections", {"files": 5}),
        ("selections", None),
    ],
)
def test_json_that_is_not_ours_is_damage(place, kind, content):
    make_store(place)
    name = {"pools": "pool.json", "selections": "selection.json"}[kind]
    (file,) = [file.name for file in storage.find(place) if file.name.endswith(name)]
    storage.write_json(f"{place}/{file}", content)
    assert list(problems(place)) == [file.rsplit("/", 1)[0]]


def test_what_a_killed_run_left_is_not_damage(place):
    make_store(place)
    unfinished = make_pool(place, 7, 8).uri
    storage.remove(f"{unfinished}/pool.json")
    storage.write_bytes(f"{place}/selections/{'0' * 32}/decisions.parquet", b"half")
    assert problems(place) == {}


def test_damage_can_be_removed(place):
    make_store(place)
    part = add_part(place, "quality", 1, 2)
    storage.write_bytes(part, b"PAR1")
    assert [check.problem for check in verify(place, remove=True) if check.problem]
    assert not storage.exists(part)
    assert problems(place) == {}
