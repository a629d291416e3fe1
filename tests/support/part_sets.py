"""Parts of scores and vectors whose values follow from the number of a row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from deita_tasks import storage
from deita_tasks.artifacts.part_tables import score_table, vector_table
from deita_tasks.artifacts.parts import PartSet, StageParts, ids_digest
from deita_tasks.artifacts.shards import ShardPlan, plan_shards
from deita_tasks.records import ModelOutput


def ids_of(*numbers: int) -> list[str]:
    return [f"{number:032x}" for number in numbers]


def scores_of(*numbers: int) -> pa.Table:
    """A part in which the score of row `n` is 1 + n/1000."""
    values = np.array([1 + number / 1000 for number in numbers], np.float32)
    output = ModelOutput(values, np.zeros(len(numbers), np.int32))
    return score_table(ids_of(*numbers), [1] * len(numbers), output)


def vectors_of(*numbers: int) -> pa.Table:
    """A part in which the vector of row `n` is (n, -n)."""
    values = np.array([[number, -number] for number in numbers], np.float32)
    return vector_table(ids_of(*numbers), ModelOutput(values, np.zeros(len(numbers), np.int32)))


def score_set(store: str, **fingerprint: str) -> PartSet:
    return PartSet.create(store, "scores/quality", fingerprint or {"backend": "test"})


def vector_set(store: str, backend: str = "test") -> PartSet:
    return PartSet.create(store, "embeddings", {"backend": backend})


def add(part_set: PartSet, table: pa.Table) -> str:
    """Write a part; return its digest."""
    return part_set.write(ids_digest(table["id"]), [table])


def select(part_set: PartSet, *digests: str) -> StageParts:
    return StageParts(part_set=part_set, digests=list(digests))


def plan(part_set: PartSet, store: str, *numbers: int, shard_rows: int | None = None) -> ShardPlan:
    """Plan the rows with these numbers, which stand at every tenth position of a pool."""
    positions = np.arange(len(numbers)) * 10
    return plan_shards(part_set, store, pa.array(ids_of(*numbers)), positions, shard_rows)


def merge(part_set: PartSet, *old_digests: str, into: pa.Table) -> None:
    """Do as compaction does: write the new part first, then remove the old ones."""
    add(part_set, into)
    for digest in old_digests:
        storage.remove(part_set.part(digest))
