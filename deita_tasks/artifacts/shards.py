"""Plan shards: the rows of a pool that no part holds yet, cut into pieces of work.

<store>/plans/<fingerprint>-<digest>.parquet    the rows to compute, one row group a shard

A run that begins beside another one cuts the missing rows as that one did: so both name the same
shards, and none is computed twice (`claims.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from deita_tasks import storage
from deita_tasks.artifacts.parts import PartSet, ids_digest
from deita_tasks.errors import DamagedArtifact, MissingFile
from deita_tasks.selecting.arrays import Indices, Mask
from deita_tasks.strict_json import JsonRecord

# Prefect takes about 60 ms a task, cached ones too: three stages of 50 take under 10 s, for a pool
# of any size.
SHARDS_PER_STAGE = 50
MIN_SHARD_ROWS = 128
LONGEST_RUN = timedelta(days=2)
# A lazy round takes over a shard of a recent plan if it asks for half of what is left of it: for
# the rest of a round that was killed, but not for a few rows of a plan of everything.
LEAST_SHARE = 0.5

PLAN = pa.schema({"id": pa.string(), "position": pa.int64(), "shard": pa.string()})


class Shard(JsonRecord):
    """Rows whose values are in a part, or are to be computed.

    digest: of the ids of the rows, so that the same shard has the same name in every run. part: the
    digest of a part that holds them; None if they are to be computed. plan, group: the file and
    row group that list the rows to compute: those of the shard that were in no part. rows_digest:
    of the ids of these.
    """

    digest: str
    rows: int
    part: str | None = None
    plan: str | None = None
    group: int = 0
    rows_digest: str | None = None


@dataclass(frozen=True)
class ShardPlan:
    """The shards of one stage over one pool: the parts present, and those to compute."""

    present: list[Shard]
    missing: list[Shard]

    @property
    def rows_to_compute(self) -> int:
        """Rows of the missing shards."""
        return sum(shard.rows for shard in self.missing)


class PresentParts(NamedTuple):
    """The parts that hold some of n rows, and which of the rows they hold: bool (n,)."""

    shards: list[Shard]
    is_present: Mask

    @property
    def missing_rows(self) -> int:
        """The number of rows that no part holds."""
        return int(np.count_nonzero(~self.is_present))


def plan_shards(
    part_set: PartSet, store: str, ids: pa.Array, positions: Indices, shard_rows: int | None
) -> ShardPlan:
    """Return which parts hold some of the distinct `ids`, and shards for the rest.

    positions: int64 (n,), where the ids stand in the pool. shard_rows: rows of a shard; None:
    SHARDS_PER_STAGE shards. Missing rows are divided in pool order.
    """
    present = find_present(part_set, ids)
    missing = np.flatnonzero(~present.is_present)
    missing_ids = pa.array(ids).take(pa.array(missing))
    shards = plan_missing(part_set, store, missing_ids, positions[missing], shard_rows)
    return ShardPlan(present.shards, shards)


def find_present(part_set: PartSet, ids: pa.Array) -> PresentParts:
    """Return which parts hold some of the distinct `ids`.

    Leaves out damaged parts, with a warning. It reads the ids of every part of the fingerprint.
    """
    row_of_id = pd.Index(pa.array(ids).to_pandas())
    is_present = np.zeros(len(row_of_id), np.bool_)
    shards = []
    for digest, part_ids in part_set.index().items():
        rows = row_of_id.get_indexer(part_ids.to_pandas())
        rows = rows[rows >= 0]
        if len(rows):
            shard = Shard(digest=ids_digest(part_ids), rows=len(part_ids), part=digest)
            shards.append(shard)
            is_present[rows] = True
    return PresentParts(shards, is_present)


def plan_missing(
    part_set: PartSet,
    store: str,
    ids: pa.Array,
    positions: Indices,
    shard_rows: int | None,
    count_missing: Callable[[pa.ChunkedArray], int] | None = None,
) -> list[Shard]:
    """Return shards of the distinct `ids`, which are in no part.

    positions, shard_rows: as in `plan_shards`. count_missing: returns how many of some rows are in
    no part; None if there are no others than `ids`.
    """
    if not len(ids):
        return []
    plans = storage.join(store, "plans")
    rows = pa.table({"id": ids, "position": positions})
    named = _name_shards(rows, plans, part_set, shard_rows, count_missing)
    return _write_plan(plans, part_set, named)


def _name_shards(
    rows: pa.Table,
    plans: str,
    part_set: PartSet,
    shard_rows: int | None,
    count_missing: Callable[[pa.ChunkedArray], int] | None,
) -> pa.Table:
    """Return `rows` (id, position) with their shards, PLAN: those of recent plans, then new ones.

    A shard of a recent plan keeps its name, also if some of its rows are present now.
    """
    row_of_id = pd.Index(rows["id"].to_pandas())
    claimed = part_set.claimed_shards() if count_missing else set()
    names = np.empty(len(rows), object)
    is_named = np.zeros(len(rows), np.bool_)
    for group in _recent_shards(plans, part_set):
        name = group["shard"][0].as_py()
        found = row_of_id.get_indexer(group["id"].to_pandas())
        found = found[found >= 0]
        if not len(found) or is_named[found].any():
            continue
        has_room = shard_rows is None or len(found) <= shard_rows
        left = count_missing(group["id"]) if count_missing else len(found)
        is_wanted = name in claimed or len(found) >= LEAST_SHARE * left
        if has_room and is_wanted:
            is_named[found] = True
            names[found] = name
    rest = np.flatnonzero(~is_named)
    if shard_rows is None:
        shard_rows = max(MIN_SHARD_ROWS, -(-len(rest) // SHARDS_PER_STAGE))
    for start in range(0, len(rest), shard_rows):
        piece = rest[start : start + shard_rows]
        names[piece] = ids_digest(rows["id"].take(pa.array(piece)))
    return rows.append_column("shard", pa.array(names, pa.string())).cast(PLAN)


def _recent_shards(plans: str, part_set: PartSet) -> Iterator[pa.Table]:
    """Yield the shards of plans that may be of runs under way, the newest plan first."""
    files = [file for file in storage.find(plans) if file.name.startswith(part_set.fingerprint)]
    for file in sorted(files, key=lambda file: file.modified, reverse=True):
        if datetime.now(UTC) - file.modified > LONGEST_RUN:
            return
        with suppress(DamagedArtifact, MissingFile):
            yield from _known_shards_of(storage.join(plans, file.name))


# A plan is never written anew under its name, and a lazy run looks at its own in each round.
@lru_cache(maxsize=1024)
def _known_shards_of(plan: str) -> list[pa.Table]:
    """Return the rows of each shard of a plan, from memory where it was read before.

    Raises MissingFile or DamagedArtifact; errors are not remembered.
    """
    return _shards_of(plan)


def _shards_of(plan: str) -> list[pa.Table]:
    """Return the rows of each shard of a plan. Raises MissingFile or DamagedArtifact."""
    with storage.parquet_file(plan) as parquet:
        if not parquet.schema_arrow.equals(PLAN):
            raise DamagedArtifact(f"{plan}: columns {parquet.schema_arrow.names}; expected a plan")
        tables = [parquet.read_row_group(group) for group in range(parquet.num_row_groups)]
        for table in tables:
            table.validate(full=True)
        return tables


def _write_plan(plans: str, part_set: PartSet, rows: pa.Table) -> list[Shard]:
    """Write PLAN, each shard a row group, and return the shards by their first row.

    The file's name holds the digest of its rows, so the same plan is the same file.
    """
    names = rows["shard"].combine_chunks().dictionary_encode()
    codes = names.indices.to_numpy()
    shards = range(len(names.dictionary))
    pieces = [rows.filter(pa.array(codes == shard)) for shard in shards]
    uri = storage.join(plans, f"{part_set.fingerprint}-{_plan_digest(pieces)}.parquet")
    with storage.parquet_writer(uri, PLAN) as writer:
        for piece in pieces:
            writer.write_table(piece, row_group_size=piece.num_rows)
    return [
        Shard(
            digest=piece["shard"][0].as_py(),
            rows=piece.num_rows,
            plan=uri,
            group=group,
            rows_digest=ids_digest(piece["id"]),
        )
        for group, piece in enumerate(pieces)
    ]


def _plan_digest(pieces: Iterable[pa.Table]) -> str:
    """Return 32 hex digits that name a plan: its rows, their positions and shards, in order."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update("\n".join([*piece["id"].to_pylist(), piece["shard"][0].as_py()]).encode())
        digest.update(piece["position"].to_numpy().tobytes())
    return digest.hexdigest()[:32]


def check_plan(uri: str) -> None:
    """Raise DamagedArtifact if the plan under `uri` is not what its name stands for.

    Plans of early versions, whose names have no fingerprint, are of no use any more.
    """
    name = uri.rsplit("/", 1)[1].removesuffix(".parquet")
    _, dash, digest = name.partition("-")
    if dash and digest != _plan_digest(_shards_of(uri)):
        raise DamagedArtifact(f"{uri}: its rows are not those that its name stands for")


def read_plan(shard: Shard) -> pa.Table:
    """Return the ids and pool positions of a shard that is to be computed.

    Raises DamagedArtifact for a plan of other rows.
    """
    assert shard.plan is not None, "a shard that is present has no plan"
    with storage.parquet_file(shard.plan) as parquet:
        table = parquet.read_row_group(shard.group)
        table.validate(full=True)
    if not table.schema.equals(PLAN) or ids_digest(table["id"]) != shard.rows_digest:
        raise DamagedArtifact(f"{shard.plan}: not the plan that this run has written; run again")
    return table
