"""Scores and embeddings, kept by row: what is there for a fingerprint is never computed again.

    <store>/scores/<kind>/<fingerprint>/part-<digest>.parquet       id, values (a list, one score a pair), cut, problem
    <store>/embeddings/<fingerprint>/part-<digest>.parquet          id, values (a vector), cut, problem
                                     fingerprint.json               what the digest stands for
    <store>/plans/<digest>.parquet                                  rows to compute, one row group a shard

A part is named by the ids in it, so the same shard of work has the same name in every run. Ids are
looked up over all parts: it does not matter which run, file, order or shard a row came from.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, MissingFile, StorageError
from deita_tasks.records import ModelOutput

log = logging.getLogger(__name__)

# each costs Prefect about 60 ms, also when Cached: three stages of them under 10 s, whatever the
# pool
SHARDS_A_STAGE = 50
LEAST_SHARD_ROWS = 128
# parts whose ids are fetched at a time from an object store: it is the waiting that takes long
READERS = 8
PART_NAME = re.compile(r"part-([0-9a-f]{32})\.parquet")

WIDTH = "width"  # no column of a part, but read as one: how many numbers its vectors have
EMPTY = pa.schema({"id": pa.string(), "problem": pa.string(), WIDTH: pa.int32()}).empty_table()
PLAN = pa.schema({"id": pa.string(), "position": pa.int64()})


@dataclass(frozen=True)
class Shard:
    """A part that is there or is to be computed: `digest` names it; `plan` and `group` say where
    its rows stand (None: it is there).
    """

    digest: str
    rows: int
    plan: str | None = None
    group: int = 0


@dataclass(frozen=True)
class PartSet:
    """All parts of one fingerprint."""

    uri: str
    fingerprint: str

    @classmethod
    def of(cls, store: str, folder: str, contract: Mapping[str, Any]) -> PartSet:
        """The parts for `contract` (a component's fingerprint) under <store>/<folder>/."""
        digest = storage.digest_of(dict(contract))
        family = cls(storage.join(store, *folder.split("/"), digest), digest)
        described = storage.join(family.uri, "fingerprint.json")
        if not storage.exists(described):
            storage.write_json(described, dict(contract))
        return family

    def part(self, digest: str) -> str:
        """The URI of a part."""
        return storage.join(self.uri, f"part-{digest}.parquet")

    def listed(self) -> list[str]:
        """The digests of all parts, in order, whatever their state."""
        names = [uri.rsplit("/", 1)[1] for uri in storage.list_files(self.uri, ".parquet")]
        return [match[1] for match in map(PART_NAME.fullmatch, names) if match]

    def index(self) -> dict[str, pa.Array]:
        """Part digest -> the ids in it, for every part that can be read; a damaged one counts as
        absent, with a warning.
        """
        with ThreadPoolExecutor(1 if storage.is_local(self.uri) else READERS) as readers:
            listed = self.listed()
            return {
                digest: ids
                for digest, ids in zip(listed, readers.map(self._ids, listed), strict=True)
                if ids is not None
            }

    def _ids(self, digest: str) -> pa.Array | None:
        uri = self.part(digest)
        try:
            # A local read of every column checks every page; from an object store, which checks its
            # own bytes, the ids will do.
            table = storage.read_table(uri, None if storage.is_local(uri) else ["id"])
            if "id" not in table.column_names:
                raise DamagedArtifact(
                    f"{uri}: a table of {', '.join(table.column_names)}; expected a part with ids"
                )
        except DamagedArtifact as error:
            log.warning("a damaged part is left out and its rows are computed again: %s", error)
            return None
        except MissingFile:
            return None  # compacted or removed since it was listed
        return table["id"].combine_chunks()

    def plan(
        self, store: str, ids: pa.Array, positions: NDArray[np.int64], shard_rows: int | None
    ) -> tuple[list[Shard], list[Shard]]:
        """What there is and what is to be computed for the distinct `ids`, which stand at
        `positions` of the pool: (present, missing).

        Missing rows are cut into shards in pool order and listed in one plan file, a row group
        each.
        """
        wanted = pd.Index(pa.array(ids).to_pandas())
        have = np.zeros(len(wanted), np.bool_)
        present = []
        for digest, held in self.index().items():
            rows = wanted.get_indexer(held.to_pandas())
            if (rows >= 0).any():
                present.append(Shard(digest, len(held)))
                have[rows[rows >= 0]] = True
        missing = np.flatnonzero(~have)
        if not len(missing):
            return present, []
        rows_a_shard = shard_rows or max(LEAST_SHARD_ROWS, -(-len(missing) // SHARDS_A_STAGE))
        table = pa.table(
            {"id": pa.array(ids).take(pa.array(missing)), "position": positions[missing]},
            schema=PLAN,
        )
        return present, _write_plan(store, table, rows_a_shard)

    def write(self, digest: str, table: pa.Table) -> None:
        """Write a part, atomically."""
        storage.write_table(self.part(digest), table)

    def tables(
        self, digests: Iterable[str], columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows of some parts, a row group at a time; rows may come twice.

        Compaction may merge a part into another while we read. So where one is gone, all parts that
        are there now are read beside those that were found; a caller that finds an id in none of
        them says so.
        """
        found = set()
        digests = list(digests)
        for digest in digests:
            with suppress(MissingFile):
                try:
                    yield from self._groups(digest, columns)
                except DamagedArtifact as error:
                    raise StorageError(f"{error}; {self._set_aside(digest)}") from error
                found.add(digest)
        if len(found) == len(set(digests)):
            return
        log.info("%s: parts were merged while they were read; looking again", self.uri)
        for digest in self.listed():
            if digest not in found:
                try:
                    yield from self._groups(digest, columns)
                except DamagedArtifact as error:
                    log.warning("a damaged part is left out: %s", error)

    def _set_aside(self, digest: str) -> str:
        """Remove a part that is damaged when it is read once more, too; says what to do. (An index
        over an object store reads only ids: it would name the part in every run.)
        """
        try:
            for _ in self._groups(digest, None):
                pass
        except MissingFile:
            pass
        except DamagedArtifact:
            try:
                storage.remove(self.part(digest))
            except StorageError as refused:
                return f"remove it, which is not possible from here ({refused})"
        else:
            return "read once more it is whole: run again"
        return "it is removed: run again, and its rows will be computed"

    def _groups(self, digest: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        with storage.parquet_file(self.part(digest)) as parquet:
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(
                    group, columns=[name for name in columns if name != WIDTH] if columns else None
                )
                if columns and WIDTH in columns:
                    width = pa.scalar(
                        parquet.schema_arrow.field("values").type.list_size, pa.int32()
                    )
                    table = table.append_column(WIDTH, pa.repeat(width, len(table)))
                yield table

    def gather(
        self, digests: Iterable[str], columns: Sequence[str] = ("id", "values", "cut", "problem")
    ) -> pa.Table:
        """The rows of some parts in one table; an id that stands in several parts comes once."""
        table = pa.concat_tables(self.tables(digests, columns))
        repeated = pd.Series(table["id"].to_pandas()).duplicated().to_numpy()
        return table.filter(pa.array(~repeated)) if repeated.any() else table


def _write_plan(store: str, table: pa.Table, shard_rows: int) -> list[Shard]:
    pieces = [table.slice(start, shard_rows) for start in range(0, table.num_rows, shard_rows)]
    digests = [part_digest(piece["id"]) for piece in pieces]
    uri = storage.join(
        store, "plans", f"{storage.digest_of([digests, pc.sum(table['position']).as_py()])}.parquet"
    )
    with storage.parquet_writer(uri, PLAN) as writer:
        for piece in pieces:
            writer.write_table(piece, row_group_size=max(1, piece.num_rows))
    return [
        Shard(digest, piece.num_rows, uri, group)
        for group, (digest, piece) in enumerate(zip(digests, pieces, strict=True))
    ]


def read_plan(shard: Shard) -> pa.Table:
    """The ids and pool positions of a shard that is to be computed."""
    assert shard.plan is not None, "a shard that is there has no plan"
    with storage.parquet_file(shard.plan) as parquet:
        return parquet.read_row_group(shard.group)


def part_digest(ids: pa.Array | pa.ChunkedArray) -> str:
    """32 hex digits that name a set of ids, whatever their order."""
    return hashlib.sha256("\n".join(sorted(ids.to_pylist())).encode()).hexdigest()[:32]


def score_table(
    ids: Sequence[str],
    counts: Sequence[int],
    measured: ModelOutput,
    unscored: Mapping[int, str] | None = None,
) -> pa.Table:
    """A part of scores: `measured` holds the pairs of all conversations one after the other,
    `counts[i]` of them for ids[i].

    A conversation with a pair that has no score has none at all (`values` null) and says why: a sum
    over fewer turns would be made up. `unscored`: row -> why it as a whole has none.
    """
    ends = np.cumsum(np.asarray(counts, dtype=np.int64))
    problems: dict[int, str] = dict(unscored or {})
    for pair, why in sorted(measured.problems.items()):
        row = int(np.searchsorted(ends, pair, side="right"))
        problems.setdefault(row, f"turn {pair - int(ends[row] - counts[row]) + 1}: {why}")
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    cut = np.diff(
        np.concatenate([[0], np.cumsum(measured.truncated_tokens, dtype=np.int64)])[offsets]
    )
    null = pa.array([row in problems for row in range(len(ids))], pa.bool_())
    values = pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(measured.values, pa.float32()), mask=null
    )
    return _part(ids, values, cut, problems)


def vector_table(ids: Sequence[str], measured: ModelOutput) -> pa.Table:
    """A part of embeddings: row i of `measured.values` (n, d) belongs to ids[i]."""
    rows, width = measured.values.shape
    flat = pa.array(measured.values.reshape(-1), pa.float32())
    null = pa.array([row in measured.problems for row in range(rows)], pa.bool_())
    return _part(
        ids,
        pa.FixedSizeListArray.from_arrays(flat, width, mask=null),
        measured.truncated_tokens,
        measured.problems,
    )


def _part(
    ids: Sequence[str], values: pa.Array, cut: NDArray[Any], problems: Mapping[int, str]
) -> pa.Table:
    why = pa.array([problems.get(row) for row in range(len(ids))], pa.string())
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "values": values,
            "cut": pa.array(cut, pa.int32()),
            "problem": why,
        }
    )


def place_vectors(
    family: PartSet, digests: Iterable[str], ids: Sequence[str], target: NDArray[np.float32]
) -> None:
    """Fill row i of `target` (n, d), which may be a memory map, with the vector of ids[i], or NaN
    where it has none of d numbers.

    Raises StorageError for an id that is in no part.
    """
    target[:] = np.nan
    where = pd.Index(ids)
    seen = np.zeros(len(where), np.bool_)
    for table in family.tables(digests, ["id", "values"]):
        rows = where.get_indexer(table["id"].to_pandas())
        wanted = rows >= 0
        seen[rows[wanted]] = True
        wanted &= table["values"].is_valid().to_numpy()
        lists = table["values"].combine_chunks()
        if lists.type.list_size == target.shape[1]:
            vectors = (
                (lists if wanted.all() else lists.filter(pa.array(wanted))).flatten().to_numpy()
            )
            target[rows[wanted]] = vectors.reshape(-1, target.shape[1])
    if not seen.all():
        raise StorageError(
            f"{family.uri}: {int((~seen).sum())} of {len(seen)} rows are in no part; run "
            "again: they will be computed"
        )


def vector_width(family: PartSet, digests: Sequence[str], ids: Sequence[str]) -> int:
    """d of most of the vectors of `ids`; 0 where none of them has one."""
    table = pa.concat_tables([EMPTY, *family.tables(digests, EMPTY.column_names)])
    return _most(table.filter(pc.is_in(table["id"], value_set=pa.array(ids, pa.string()))))


def vector_problems(table: pa.Table) -> pa.ChunkedArray:
    """Why a row of `table` (problem, WIDTH) has no vector to compare: what its part says, or that
    most vectors are of another width.
    """
    most = _most(table)
    told = [
        f"its vector has {width} numbers, where most have {most}" if width != most else None
        for width in table[WIDTH].to_pylist()
    ]
    return pc.coalesce(table["problem"], pa.array(told, pa.string()))


def _most(table: pa.Table) -> int:
    """The width of most of the vectors; the largest where two are as common."""
    widths = table.filter(pc.is_null(table["problem"]))[WIDTH].to_pandas().value_counts()
    return int(widths[widths == widths.max()].index.max()) if len(widths) else 0
