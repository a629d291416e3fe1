"""Merge many small parts into few large ones, which are faster to list and to read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from deita_tasks import storage
from deita_tasks.artifacts.inventory import list_artifacts
from deita_tasks.artifacts.parts import PartSet, ids_digest
from deita_tasks.artifacts.runs import grace_beside, read_marks
from deita_tasks.errors import DamagedArtifact, MissingFile

log = logging.getLogger(__name__)

MERGED_ROWS = 50_000


@dataclass(frozen=True)
class Merge:
    """Number of parts in a folder before and after compaction."""

    folder: str
    before: int
    after: int


def compact(store: str, merged_rows: int = MERGED_ROWS) -> Iterator[Merge]:
    """Merge parts of less than half of `merged_rows` rows into parts of about `merged_rows`.

    Writes a new part before it removes the old ones, so every row is in a part at any time. Leaves
    damaged parts alone, and parts that a run under way may have written: it finds them by name.
    """
    now = datetime.now(UTC)
    begun = now - grace_beside(read_marks(store, now), timedelta(0), now)
    for artifact in list_artifacts(store):
        if not artifact.is_part_set:
            continue
        part_set = PartSet(uri=storage.join(store, artifact.folder), fingerprint=artifact.digest)
        young = {file.name.rsplit("/", 1)[1] for file in artifact.files if file.modified >= begun}
        parts = part_set.index()
        small = {
            digest: ids
            for digest, ids in parts.items()
            if len(ids) < merged_rows / 2 and part_set.part_name(digest) not in young
        }
        after = len(parts) - len(small)
        for group in _group(small, merged_rows):
            shard = ids_digest(pa.concat_arrays(list(group.values())).unique())
            after += len(merge_parts(part_set, shard, list(group)))
        if after < len(parts):
            yield Merge(artifact.folder, len(parts), after)


def _group(parts: Mapping[str, pa.Array], merged_rows: int) -> Iterator[dict[str, pa.Array]]:
    """Yield groups of parts of at most `merged_rows` distinct rows together."""
    group: dict[str, pa.Array] = {}
    group_ids: set[str] = set()
    for digest, ids in parts.items():
        new_ids = set(ids.to_pylist()) - group_ids
        if group and len(group_ids) + len(new_ids) > merged_rows:
            yield group
            group, group_ids, new_ids = {}, set(), set(ids.to_pylist())
        group[digest] = ids
        group_ids |= new_ids
    if group:
        yield group


def merge_parts(part_set: PartSet, shard: str, digests: Sequence[str]) -> list[str]:
    """Merge parts into one part of a shard; return the digests of the parts there are then.

    Leaves them as they are, with a warning, if one has gone or is damaged.
    """
    if len(digests) < 2:
        return list(digests)
    try:
        merged = part_set.write(shard, _distinct_rows(part_set, digests))
    except (MissingFile, DamagedArtifact, pa.ArrowException) as error:
        log.warning("%s: parts left as they are: %s", part_set.uri, error)
        return list(digests)
    for digest in set(digests) - {merged}:
        storage.remove(part_set.part(digest))
    return [merged]


def _distinct_rows(part_set: PartSet, digests: Iterable[str]) -> Iterator[pa.Table]:
    """Yield the rows of some parts, one part at a time, each id once."""
    seen_ids: set[str] = set()
    for digest in digests:
        table = part_set.read(digest)
        ids = table["id"].to_pylist()
        is_new = np.array([id not in seen_ids for id in ids], np.bool_)
        seen_ids.update(ids)
        if is_new.any():
            yield table.filter(pa.array(is_new))
