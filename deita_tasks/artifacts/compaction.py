"""Many small parts become few large ones, so that listing and reading them is quick."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from deita_tasks import storage
from deita_tasks.artifacts.inventory import artifacts
from deita_tasks.artifacts.parts import PartSet, part_digest
from deita_tasks.errors import DamagedArtifact, MissingFile

log = logging.getLogger(__name__)

MERGED_ROWS = 50_000


@dataclass(frozen=True)
class Merged:
    """What compaction did to one family: so many parts became so many."""

    folder: str
    before: int
    after: int


def compact(store: str, merged_rows: int = MERGED_ROWS) -> Iterator[Merged]:
    """Merge the parts of every family that hold less than half of `merged_rows` rows into parts of
    about as many.

    A new part is there before the old ones go, so every row is in one of them at any time. Damaged
    parts are left alone.
    """
    for artifact in artifacts(store):
        if artifact.kind == "embeddings" or artifact.kind.startswith("scores/"):
            family = PartSet(storage.join(store, artifact.folder), artifact.digest)
            held = family.index()
            small = {digest: ids for digest, ids in held.items() if len(ids) < merged_rows / 2}
            after = (
                len(held)
                - len(small)
                + sum(_merge(family, group) for group in _groups(small, merged_rows))
            )
            if after < len(held):
                yield Merged(artifact.folder, len(held), after)


def _groups(parts: Mapping[str, pa.Array], merged_rows: int) -> Iterator[dict[str, pa.Array]]:
    group: dict[str, pa.Array] = {}
    for digest, ids in parts.items():
        if group and sum(map(len, group.values())) + len(ids) > merged_rows:
            yield group
            group = {}
        group[digest] = ids
    if group:
        yield group


def _merge(family: PartSet, group: Mapping[str, pa.Array]) -> int:
    """Merge some parts into one; returns how many there are of them then: 1, or as many as before
    where one has gone meanwhile.
    """
    if len(group) < 2:
        return len(group)
    ids = pa.concat_arrays(list(group.values())).unique()
    digest = part_digest(ids)
    try:
        with storage.parquet_file(family.part(next(iter(group)))) as first:
            schema = first.schema_arrow
        with storage.parquet_writer(family.part(digest), schema) as writer:
            for table in _distinct(family, group):
                writer.write_table(table.cast(schema), row_group_size=max(1, table.num_rows))
    except (MissingFile, DamagedArtifact, pa.ArrowException) as error:
        log.warning("%s: left as it is: %s", family.uri, error)
        return len(group)
    for old in group.keys() - {digest}:
        storage.remove(family.part(old))
    return 1


def _distinct(family: PartSet, group: Iterable[str]) -> Iterator[pa.Table]:
    """The rows of some parts, a part at a time, each id once."""
    seen: set[str] = set()
    for digest in group:
        table = storage.read_table(family.part(digest))
        ids = table["id"].to_pylist()
        fresh = np.array([id not in seen for id in ids], np.bool_)
        seen.update(ids)
        if fresh.any():
            yield table.filter(pa.array(fresh))
