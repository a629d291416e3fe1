"""Reading the pool artifact: rows by position and by id; damage is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deita_tasks import storage
from deita_tasks.artifacts import pool as pool_module
from deita_tasks.artifacts.pool import Pool, PoolFile, first_positions, pool_uri, read_summary
from deita_tasks.errors import DamagedArtifact, StorageError
from deita_tasks.strict_json import DIGEST_FIELD
from tests.support.handmade import INPUTS, A, C, make
from tests.support.pool_rows import bad_row, good_row, good_rows, pool_of, rows_in

DATA = Path(__file__).parent / "data"  # as the code before typed records wrote it


# ---- rows by position and by id


def test_positions_are_the_good_rows_in_source_order(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, good_row(1), bad_row(2), good_row(3), good_row(4), bad_row(5))
    assert [(position, row.source.row) for position, row in rows_in(pool)] == [
        (0, 1),
        (1, 3),
        (2, 4),
    ]
    assert pool.index()["source_row"].to_pylist() == [1, 3, 4]
    assert pool.quarantine()["source_row"].to_pylist() == [2, 5]
    assert (pool.summary.good, pool.summary.quarantined, pool.summary.rows) == (3, 2, 5)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize(
    "positions", [[], [0], [13], [2, 3], [5, 6], [12, 0, 7, 7], list(range(14)), [11, 10, 9]]
)
def test_any_positions_are_read_ascending_each_once(positions: list[int], tmp_path: Path) -> None:
    """Across the borders of groups (3) and files (6)."""
    pool = pool_of(tmp_path, *good_rows(14))
    ascending = sorted(set(positions))
    assert [(position, row.source.row) for position, row in pool.read(positions)] == [
        (position, position + 1) for position in ascending
    ]
    assert [row for _, row in pool.read(np.array(positions, np.int64))] == [
        good_row(position + 1) for position in ascending
    ]


@pytest.mark.usefixtures("small_groups")
def test_only_the_groups_that_are_needed_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(tmp_path, *good_rows(14))
    groups: list[int] = []
    read_row_group = pq.ParquetFile.read_row_group

    def watched(self: pq.ParquetFile, number: int) -> pa.Table:
        groups.append(number)
        return read_row_group(self, number)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    assert [position for position, _ in pool.read([4, 13])] == [4, 13]
    assert groups == [1, 0]  # the second group of the first file, the first of the third


def test_duplicates_are_kept_and_the_first_is_known(tmp_path: Path) -> None:
    pool = pool_of(
        tmp_path,
        good_row(1, "a"),
        good_row(2, "b"),
        good_row(3, "a"),
        good_row(4, "a", uri="other.csv", note="later"),
        good_row(5, "c"),
    )
    ids = pool.index(["id"])["id"]
    assert len(set(ids.to_pylist())) == 3
    assert first_positions(ids).tolist() == [0, 1, 4]
    assert pool.index(["source_uri"])["source_uri"].to_pylist()[3] == "other.csv"


def test_first_positions_of_nothing() -> None:
    assert first_positions(pa.array([], pa.string())).tolist() == []


def test_rows_by_id_are_those_that_stand_first(tmp_path: Path) -> None:
    pool, _ = make(tmp_path)
    conversations = pool.find([C.id, A.id])
    assert conversations == {A.id: A, C.id: C}
    assert conversations[C.id].source.row == 4  # line 5 repeats it
    with pytest.raises(KeyError, match="1 of 2 ids are not in the pool"):
        pool.find([A.id, "0" * 32])


def test_where_a_pool_lies() -> None:
    assert pool_uri("s3://bucket/store", "abc") == "s3://bucket/store/pools/abc"
    with pytest.raises(StorageError):
        pool_uri("store", "../../etc")


# ---- pool.json


def test_the_pool_json_of_earlier_code_is_read(tmp_path: Path) -> None:
    pool, _ = make(tmp_path)
    text = (DATA / "pool.json").read_text()
    (tmp_path / "pools" / "p" / "pool.json").write_text(text)
    pool = Pool.open(pool.uri)
    assert pool.summary.inputs == INPUTS
    assert (pool.summary.good, pool.summary.quarantined) == (6, 1)
    assert pool.summary.files == [
        PoolFile(
            name="rows-00000.parquet",
            groups=[6],
            bytes=3409,
            sha256="d7faba71fe5e69f16c5c20bf9be4a7177a1e240307c5c5a9bf54f1741b9a7aca",
        )
    ]
    storage.write_json(str(tmp_path / "again.json"), pool.summary.to_dict())
    assert (tmp_path / "again.json").read_text() == text


def test_a_pool_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no pool here; expected a pool\.json"):
        Pool.open(str(tmp_path / "absent"))


def test_a_pool_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool_of(tmp_path, good_row(1))
    monkeypatch.setattr(pool_module, "VERSION", pool_module.VERSION + 1)
    with pytest.raises(StorageError, match=r"expected .*; load it again"):
        Pool.open(str(tmp_path))


@pytest.mark.parametrize("text", ['{"version": 1, "go', "[]", "null", '{"version": 2}'])
def test_pool_json_that_is_something_else(text: str, tmp_path: Path) -> None:
    pool_of(tmp_path, good_row(1))
    (tmp_path / "pool.json").write_text(text)
    with pytest.raises(StorageError):
        Pool.open(str(tmp_path))


def test_a_pool_json_without_a_field_names_it(tmp_path: Path) -> None:
    pool_of(tmp_path, good_row(1))
    fields = json.loads((tmp_path / "pool.json").read_text())
    del fields["good"], fields[DIGEST_FIELD]
    (tmp_path / "pool.json").write_text(json.dumps(fields))
    with pytest.raises(DamagedArtifact, match=r"not a PoolSummary .*'good'"):
        read_summary(str(tmp_path))


# ---- damage


@pytest.mark.parametrize("name", ["rows-00000.parquet", "rows-00001.parquet", "quarantine.parquet"])
@pytest.mark.parametrize("damage", ["gone", "cut short", "one byte", "another's"])
@pytest.mark.usefixtures("small_groups")
def test_damage_is_noticed(name: str, damage: str, tmp_path: Path) -> None:
    pool = pool_of(tmp_path / "pool", *good_rows(8), bad_row(9))
    assert pool.is_intact()
    file = tmp_path / "pool" / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "cut short":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "one byte":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        other_rows = [good_row(number) for number in range(101, 109)]
        pool_of(tmp_path / "other", *other_rows, bad_row(109))
        file.write_bytes((tmp_path / "other" / name).read_bytes())
    assert not pool.is_intact()


@pytest.mark.parametrize("damage", ["cut short", "one byte"])
def test_damage_is_never_read_as_rows(damage: str, tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *(good_row(number, "x" * 50 + str(number)) for number in range(200)))
    file = tmp_path / "rows-00000.parquet"
    content = bytearray(file.read_bytes())
    if damage == "cut short":
        del content[-50:]
    else:
        content[content.index(b"PAR1") + 60] ^= 255  # in the first page
    file.write_bytes(content)
    with pytest.raises(DamagedArtifact):
        list(rows_in(pool))
    with pytest.raises(DamagedArtifact):
        pool.index(["id"])
