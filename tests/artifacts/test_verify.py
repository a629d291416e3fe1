"""Checks of a store: over a local folder, memory:// and S3."""

from __future__ import annotations

from pathlib import Path

import pytest

from deita_tasks import storage
from deita_tasks.artifacts.verify import verify
from tests.support.small_store import add_part, make_pool, make_store, problems

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
