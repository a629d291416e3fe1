"""Plans of what is to be computed: over a local folder, memory:// and S3."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from deita_tasks import storage
from deita_tasks.artifacts.parts import PartSet, ids_digest
from deita_tasks.artifacts.shards import (
    MIN_SHARD_ROWS,
    SHARDS_PER_STAGE,
    Shard,
    plan_missing,
    read_plan,
)
from deita_tasks.errors import DamagedArtifact, MissingFile
from tests.support.part_sets import add, ids_of, plan, score_set, scores_of

pytest_plugins = ["tests.support.s3_fixtures"]


def test_only_what_is_missing_is_planned(place):
    part_set = score_set(place)
    shards = plan(part_set, place, 1, 2, 3, shard_rows=2)
    assert shards.present == []
    assert [shard.rows for shard in shards.missing] == [2, 1]
    assert shards.rows_to_compute == 3
    assert [read_plan(shard)["position"].to_pylist() for shard in shards.missing] == [[0, 10], [20]]
    assert [shard.digest for shard in shards.missing] == [
        ids_digest(pa.array(ids_of(1, 2))),
        ids_digest(pa.array(ids_of(3))),
    ]
    digest = add(part_set, scores_of(1, 2))
    shards = plan(part_set, place, 3, 2, 4, 1, shard_rows=2)  # another order, another file
    first = ids_digest(pa.array(ids_of(1, 2)))
    assert shards.present == [Shard(digest=first, rows=2, part=digest)]
    planned = [read_plan(shard)["id"].to_pylist() for shard in shards.missing]
    assert planned == [ids_of(3), ids_of(4)]
    add(part_set, scores_of(3, 4, 5))
    shards = plan(part_set, place, 4, 1)
    assert len(shards.present) == 2
    assert shards.missing == []
    assert shards.rows_to_compute == 0
    assert plan(part_set, place, 6).present == []  # leaves out parts without a row of the pool


def test_the_default_is_a_bounded_number_of_shards_of_some_size(tmp_path):
    part_set = score_set(str(tmp_path))
    small = plan(part_set, str(tmp_path), *range(MIN_SHARD_ROWS + 1))
    assert [shard.rows for shard in small.missing] == [MIN_SHARD_ROWS, 1]
    part_set = score_set(str(tmp_path), model="another")
    large = plan(part_set, str(tmp_path), *range(MIN_SHARD_ROWS * SHARDS_PER_STAGE * 2))
    assert len(large.missing) == SHARDS_PER_STAGE


def test_a_shard_comes_back_from_json():
    shard = Shard(digest="0" * 32, rows=2, plan="plans/x.parquet", group=1)
    fields = shard.to_dict()
    assert fields == {
        "digest": "0" * 32,
        "rows": 2,
        "part": None,
        "plan": "plans/x.parquet",
        "group": 1,
        "rows_digest": None,
    }
    assert Shard.model_validate(fields) == shard


def test_a_plan_that_was_removed(place):
    (shard,) = plan(score_set(place), place, 1).missing
    storage.remove(f"{place}/plans")
    with pytest.raises(MissingFile):
        read_plan(shard)


def test_a_plan_of_other_rows_is_refused(place):
    part_set = score_set(place)
    (shard,) = plan(part_set, place, 1, 2).missing
    storage.write_table(shard.plan, read_plan(shard).slice(1))
    with pytest.raises(DamagedArtifact, match="not the plan that this run has written"):
        read_plan(shard)


def test_many_parts_are_looked_up_quickly(tmp_path):
    """Without a pass over the pool for every part."""
    part_set = score_set(str(tmp_path))
    numbers = np.arange(60_000).reshape(60, 1_000)
    for row in numbers:
        add(part_set, scores_of(*row))
    start = time.perf_counter()
    shards = plan(part_set, str(tmp_path), *numbers.reshape(-1)[::-1], 99_999)
    assert len(shards.present) == 60
    assert shards.rows_to_compute == 1
    assert time.perf_counter() - start < 5


def shard_digest(*numbers: int) -> str:
    return ids_digest(pa.array(ids_of(*numbers)))


def test_a_run_beside_another_one_cuts_as_that_one_did(place):
    part_set = score_set(place)
    first = plan(part_set, place, *range(1, 7), shard_rows=2)
    add(part_set, scores_of(1, 2))  # the first run has come so far
    second = plan(part_set, place, 9, 4, 3, 2, 1, 6, 5, 8)  # over a pool that has grown
    digests = {shard.digest for shard in second.missing}
    assert digests == {shard_digest(3, 4), shard_digest(5, 6), shard_digest(8, 9)}
    assert {shard.digest for shard in first.missing[1:]} < digests
    for shard in second.missing:  # at the places of its own pool
        rows = read_plan(shard)
        places = {id: 10 * place for place, id in enumerate(ids_of(9, 4, 3, 2, 1, 6, 5, 8))}
        assert [places[id] for id in rows["id"].to_pylist()] == rows["position"].to_pylist()


def test_a_shard_keeps_its_name_while_its_rows_come_in(place):
    """So the claim on it holds for the rows that its run has not computed yet."""
    part_set = score_set(place)
    (first,) = plan(part_set, place, 1, 2, 3, 4).missing
    part_set.write(first.digest, [scores_of(2, 3)])
    (second,) = plan(part_set, place, 1, 2, 3, 4).missing
    assert second.digest == first.digest
    assert second.rows == 2
    assert read_plan(second)["id"].to_pylist() == ids_of(1, 4)
    (third,) = plan(part_set, place, 4, 1, 2, 3).missing
    assert third.digest == first.digest, "also from the plan of the second run"
    assert read_plan(second)["position"].to_pylist() == [0, 30], "its plan is as it was"


def plan_round(
    place: str, part_set: PartSet, *numbers: int, computed: Sequence[int] = ()
) -> set[str]:
    """Return the shards of a lazy round over some rows; `computed` are those of other rounds."""
    ids = pa.array(ids_of(*numbers))
    known = set(ids_of(*computed))
    shards = plan_missing(
        part_set,
        place,
        ids,
        np.arange(len(ids)),
        10,
        lambda asked: sum(id not in known for id in asked.to_pylist()),
    )
    return {shard.digest for shard in shards}


def test_a_round_takes_over_a_shard_that_it_asks_for_in_large_part(place):
    part_set = score_set(place)
    plan(part_set, place, *range(1, 13), shard_rows=6)
    assert plan_round(place, part_set, 1, 2, 3, 4, 8, 9, 20) == {
        shard_digest(*range(1, 7)),  # four of its six rows
        shard_digest(8, 9, 20),  # 8 and 9 are two of six
    }


def test_what_a_part_holds_does_not_count_for_the_share_of_a_round(place):
    """A run beside this one has four of six rows: the other two are its shard, not a new one."""
    part_set = score_set(place)
    plan(part_set, place, *range(1, 7), shard_rows=6)
    assert plan_round(place, part_set, 5, 6, computed=[1, 2, 3, 4]) == {shard_digest(*range(1, 7))}


def test_a_round_waits_for_a_shard_that_another_run_computes(place):
    part_set = score_set(place)
    (shard,) = plan(part_set, place, *range(1, 7), shard_rows=6).missing
    storage.write_bytes(part_set.claim(shard.digest), b"{}")
    assert plan_round(place, part_set, 6, 20) == {shard.digest, shard_digest(20)}


def test_runs_over_other_pools_do_not_hide_a_plan(place):
    part_set = score_set(place)
    first = plan(part_set, place, *range(1, 7), shard_rows=2)
    plan(part_set, place, 50, 51)
    second = plan(part_set, place, *range(1, 8))
    digests = {shard.digest for shard in first.missing}
    assert digests < {shard.digest for shard in second.missing}


def test_plans_of_the_same_rows_in_another_order_lie_apart(place):
    part_set = score_set(place)
    (first,) = plan(part_set, place, 1, 2, 3).missing
    (second,) = plan(part_set, place, 3, 1, 2).missing
    assert second.digest == first.digest
    assert second.plan != first.plan
    assert read_plan(first)["id"].to_pylist() == ids_of(1, 2, 3)


def test_smaller_shards_may_be_asked_for_after_a_run_without_memory(place):
    part_set = score_set(place)
    plan(part_set, place, *range(6), shard_rows=6)
    assert [shard.rows for shard in plan(part_set, place, *range(6), shard_rows=2).missing] == [
        2
    ] * 3


def test_the_plan_of_another_fingerprint_does_not_matter(place):
    plan(score_set(place, model="a"), place, *range(6), shard_rows=2)
    assert [
        shard.rows for shard in plan(score_set(place, model="b"), place, *range(6)).missing
    ] == [6]


def test_a_damaged_plan_of_another_run_does_not_matter(place):
    part_set = score_set(place)
    (shard,) = plan(part_set, place, 1, 2).missing
    storage.write_bytes(shard.plan, b"PAR1 nonsense PAR1")
    assert [shard.digest for shard in plan(part_set, place, 1, 2).missing] == [shard_digest(1, 2)]
