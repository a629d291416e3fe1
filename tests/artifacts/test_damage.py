"""Every bit of our files, flipped one at a time: noticed, or without effect; never a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deita_tasks import storage
from deita_tasks.artifacts.parts import StageParts
from deita_tasks.artifacts.pool import Pool, read_summary
from deita_tasks.artifacts.selection import is_selection, read_selection
from deita_tasks.artifacts.shards import read_plan
from deita_tasks.errors import StorageError
from tests.support.part_sets import add, plan, score_set, scores_of, select, vector_set, vectors_of
from tests.support.small_store import make_store


def flips(path: Path, step: int = 1) -> Iterator[int]:
    """Flip each bit of a file in turn, and give its number; restore the file at the end."""
    content = path.read_bytes()
    for bit in range(0, 8 * len(content), step):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        yield bit
    path.write_bytes(content)


def check(path: Path, read: Callable[[], Any], step: int = 1) -> None:
    """Expect of each flip that `read` raises StorageError, or returns what it did before."""
    before = read()
    for bit in flips(path, step):
        try:
            value = read()
        except StorageError as error:
            assert str(error), f"bit {bit}"
        else:
            assert value == before, f"bit {bit}"


@pytest.mark.parametrize("kind", ["scores", "vectors"])
def test_every_bit_of_a_part(tmp_path: Path, kind: str) -> None:
    part_set = score_set(str(tmp_path)) if kind == "scores" else vector_set(str(tmp_path))
    digest = add(part_set, scores_of(1, 2) if kind == "scores" else vectors_of(1, 2))
    for bit in flips(Path(part_set.part(digest)), step=1 if kind == "scores" else 7):
        assert part_set.index() == {}, f"bit {bit}"


def test_every_bit_of_a_part_that_is_named_after_its_ids(tmp_path: Path) -> None:
    """As early versions did: checksums of pages notice what is in them, and nothing crashes."""
    part_set = score_set(str(tmp_path))
    content = Path(part_set.part(add(part_set, scores_of(1, 2)))).read_bytes()
    path = Path(part_set.part("0" * 32))
    path.write_bytes(content)
    stage_parts = select(part_set, "0" * 32)
    for _ in flips(path, step=3):
        part_set.index()
        try:
            stage_parts.gather()
        except StorageError:
            path.write_bytes(content)  # a damaged part is removed, to be computed again


def test_a_damaged_part_is_noticed_on_an_object_store(tmp_path: Path) -> None:
    part_set = score_set("memory://damage")
    digest = add(part_set, scores_of(1, 2))
    uri = part_set.part(digest)
    with storage.open_read(uri) as handle:
        content = bytearray(handle.read())
    content[-20] ^= 1  # in the footer, which has no checksum
    storage.write_bytes(uri, bytes(content))
    with pytest.raises(StorageError, match="run again"):
        StageParts(part_set=part_set, digests=[digest]).gather()


def test_every_bit_of_a_plan(tmp_path: Path) -> None:
    (shard,) = plan(score_set(str(tmp_path)), str(tmp_path), 1, 2).missing
    for _ in flips(Path(str(shard.plan)), step=3):
        try:
            ids = read_plan(shard)["id"].to_pylist()
        except StorageError:
            continue
        assert len(ids) == 2


def test_every_bit_of_pool_json(tmp_path: Path) -> None:
    make_store(str(tmp_path))
    (path,) = tmp_path.glob("pools/*/pool.json")
    check(path, lambda: read_summary(str(path.parent)))


def test_every_bit_of_selection_json(tmp_path: Path) -> None:
    selection = make_store(str(tmp_path))
    path = Path(selection) / "selection.json"
    check(path, lambda: read_selection(selection))


@pytest.mark.parametrize("name", ["decisions.parquet", "kept.parquet"])
def test_every_bit_of_a_selection(tmp_path: Path, name: str) -> None:
    selection = make_store(str(tmp_path))
    for bit in flips(Path(selection) / name, step=31):
        assert not is_selection(selection), f"bit {bit}"
        with pytest.raises(StorageError):
            read_selection(selection).read(name)


@pytest.mark.parametrize("name", ["rows-00000.parquet", "quarantine.parquet"])
def test_every_bit_of_a_pool(tmp_path: Path, name: str) -> None:
    make_store(str(tmp_path))
    (path,) = tmp_path.glob(f"pools/*/{name}")
    pool = Pool.open(str(path.parent))
    for bit in flips(path, step=17):
        assert not pool.is_intact(), f"bit {bit}"
        with pytest.raises(StorageError):
            list(pool.read([0])) if name.startswith("rows") else pool.quarantine()
