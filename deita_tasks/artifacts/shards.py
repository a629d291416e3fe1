"""Plan shards: the rows of a pool that no part holds yet, cut into pieces of work.

<store>/plans/<fingerprint>-<digest>.parquet    the rows to compute, one row group a shard

A run that begins beside another one cuts the missing rows as that one did: so both name the same
shards, and none is computed twice (`claims.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deita_tasks import storage
from deita_tasks.artifacts.parts import PartSet, ids_digest
from deita_tasks.errors import DamagedArtifact, MissingFile
from deita_tasks.strict_json import JsonRecord

# Prefect takes about 60 ms a task, cached ones too: three stages of 50 take under 10 s, for a pool
# of any size.
SHARDS_PER_STAGE = 50
MIN_SHARD_ROWS = 128
LONGEST_RUN = timedelta(days=2)

PLAN = pa.schema({"id": pa.string(), "position": pa.int64()})


class Shard(JsonRecord):
    """Rows whose values are in a part, or are to be computed.

    digest: of the ids of the rows, so that the same shard has the same name in every run. part: the
    digest of a part that holds them; None if they are to be computed. plan, group: the file and
    row group that list the rows to compute.
    """

    digest: str
    rows: int
    part: str | None = None
    plan: str | None = None
    group: int = 0


@dataclass(frozen=True)
class ShardPlan:
    """The shards of one stage over one pool: the parts present, and those to compute."""

    present: list[Shard]
    missing: list[Shard]

    @property
    def rows_to_compute(self) -> int:
        """Rows of the missing shards."""
        return sum(shard.rows for shard in self.missing)


def plan_shards(
    part_set: PartSet,
    store: str,
    ids: pa.Array,
    positions: NDArray[np.int64],
    shard_rows: int | None,
) -> ShardPlan:
    """Return which parts hold some of the distinct `ids`, and shards for the rest.

    positions: int64 (n,), where the ids stand in the pool. shard_rows: rows of a shard; None:
    SHARDS_PER_STAGE shards. Missing rows are divided in pool order.
    """
    row_of_id = pd.Index(pa.array(ids).to_pandas())
    is_present = np.zeros(len(row_of_id), np.bool_)
    present = []
    for digest, part_ids in part_set.index().items():
        rows = row_of_id.get_indexer(part_ids.to_pandas())
        rows = rows[rows >= 0]
        if len(rows):
            shard = Shard(digest=ids_digest(part_ids), rows=len(part_ids), part=digest)
            present.append(shard)
            is_present[rows] = True
    missing = np.flatnonzero(~is_present)
    if not len(missing):
        return ShardPlan(present, [])
    columns = {"id": pa.array(ids).take(pa.array(missing)), "position": positions[missing]}
    rows = pa.table(columns, schema=PLAN)
    plans = storage.join(store, "plans")
    return ShardPlan(present, _write_plan(plans, part_set, _cut(rows, plans, part_set, shard_rows)))


def _cut(rows: pa.Table, plans: str, part_set: PartSet, shard_rows: int | None) -> list[pa.Table]:
    """Return `rows` in pieces: those of the latest plan that still lack all rows, then others."""
    pieces = []
    row_of_id = pd.Index(rows["id"].to_pandas())
    is_cut = np.zeros(len(rows), np.bool_)
    for group_ids in _latest_groups(plans, part_set):
        positions = row_of_id.get_indexer(group_ids.to_pandas())
        has_room = shard_rows is None or len(positions) <= shard_rows
        if has_room and (positions >= 0).all() and not is_cut[positions].any():
            is_cut[positions] = True
            pieces.append(rows.take(pa.array(np.sort(positions))))
    rest = rows.filter(pa.array(~is_cut))
    if shard_rows is None:
        shard_rows = max(MIN_SHARD_ROWS, -(-len(rest) // SHARDS_PER_STAGE))
    return pieces + [rest.slice(start, shard_rows) for start in range(0, len(rest), shard_rows)]


def _latest_groups(plans: str, part_set: PartSet) -> Iterator[pa.ChunkedArray]:
    """Yield the ids of each shard of the latest plan, if it may be of a run under way."""
    files = [file for file in storage.find(plans) if file.name.startswith(part_set.fingerprint)]
    latest = max(files, key=lambda file: file.modified, default=None)
    if latest is None or datetime.now(UTC) - latest.modified > LONGEST_RUN:
        return
    try:
        with storage.parquet_file(storage.join(plans, latest.name)) as parquet:
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group, columns=["id"])
                table.validate(full=True)
                yield table["id"]
    except (DamagedArtifact, MissingFile):
        return


def _write_plan(plans: str, part_set: PartSet, pieces: Sequence[pa.Table]) -> list[Shard]:
    digests = [ids_digest(piece["id"]) for piece in pieces]
    name = f"{part_set.fingerprint}-{_plan_digest(digests, pieces)}"
    uri = storage.join(plans, f"{name}.parquet")
    with storage.parquet_writer(uri, PLAN) as writer:
        for piece in pieces:
            writer.write_table(piece, row_group_size=max(1, piece.num_rows))
    return [
        Shard(digest=digest, rows=piece.num_rows, plan=uri, group=group)
        for group, (digest, piece) in enumerate(zip(digests, pieces, strict=True))
    ]


def _plan_digest(digests: Sequence[str], tables: Iterable[pa.Table]) -> str:
    positions = sum(pc.sum(table["position"]).as_py() for table in tables)
    return storage.digest_of([digests, positions])


def check_plan(uri: str) -> None:
    """Raise DamagedArtifact if the plan under `uri` is not what its name stands for."""
    with storage.parquet_file(uri) as parquet:
        groups = range(parquet.num_row_groups)
        pieces = [parquet.read_row_group(group, PLAN.names) for group in groups]
        digest = _plan_digest([ids_digest(piece["id"]) for piece in pieces], pieces)
    if not uri.endswith(f"{digest}.parquet"):
        raise DamagedArtifact(f"{uri}: its rows are not those that its name stands for")


def read_plan(shard: Shard) -> pa.Table:
    """Return the ids and pool positions of a shard that is to be computed.

    Raises DamagedArtifact for a plan of other rows.
    """
    assert shard.plan is not None, "a shard that is present has no plan"
    with storage.parquet_file(shard.plan) as parquet:
        table = parquet.read_row_group(shard.group)
        table.validate(full=True)
    if not table.schema.equals(PLAN) or ids_digest(table["id"]) != shard.digest:
        raise DamagedArtifact(f"{shard.plan}: not the plan that this run has written; run again")
    return table
