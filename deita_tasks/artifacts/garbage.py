"""Find and remove what a store no longer needs.

No selection refers to it, or a killed run left it. This is safe beside running flows: a flow that
loses a part while it reads looks again (`parts.py`), and its next run computes what is missing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from deita_tasks import storage
from deita_tasks.artifacts.inventory import Artifact, list_artifacts
from deita_tasks.artifacts.parts import PartSet
from deita_tasks.artifacts.pool import Pool, pool_uri
from deita_tasks.artifacts.selection import (
    SELECTION_FILE,
    SelectionProvenance,
    SelectionSummary,
)
from deita_tasks.errors import DamagedArtifact, MissingFile, StorageError

log = logging.getLogger(__name__)

GRACE = timedelta(days=7)  # younger files may belong to a run that is under way, or comes back
MIN_UPLOAD_AGE = timedelta(hours=1)
DIGEST = re.compile(r"[0-9a-f]{32}")


def find_garbage(
    store: str,
    grace: timedelta = GRACE,
    forget: timedelta | None = None,
    now: datetime | None = None,
) -> list[storage.FileEntry]:
    """Return the files that no selection refers to, plans and drafts; none younger than `grace`.

    forget: also selections older than this, and what only they refer to. A part stays as long as
    one of its rows is in a pool that stays.
    """
    now = now or datetime.now(UTC)
    artifacts = list_artifacts(store)
    selections = [
        artifact
        for artifact in artifacts
        if artifact.kind == "selections"
        and (forget is None or now - artifact.newest < max(forget, grace))
    ]
    used_pools, fingerprints = _references(store, artifacts, selections)
    pools = [
        artifact
        for artifact in artifacts
        if artifact.kind == "pools"
        and (artifact.digest in used_pools or now - artifact.newest < grace)
    ]
    kept = {artifact.folder for artifact in [*selections, *pools]}
    ids = _ids_of(store, pools)
    live = {artifact.digest for artifact in [*selections, *pools]} | fingerprints
    garbage: list[storage.FileEntry] = []
    for artifact in artifacts:
        if artifact.is_part_set and artifact.digest in fingerprints:
            garbage += _unused_parts(store, artifact, ids)
        elif artifact.is_part_set:
            garbage += artifact.files if now - artifact.newest >= grace else ()
        elif artifact.kind == "results":
            garbage += [file for file in artifact.files if not _is_live(file, live)]
        elif artifact.folder not in kept:
            garbage += artifact.files
    return [file for file in garbage if now - file.modified >= grace]


def _is_live(result: storage.FileEntry, live: set[str]) -> bool:
    """Return whether a result that Prefect remembers is of an artifact that exists.

    The first digest in its name is of the pool, the selection or the fingerprint.
    """
    return not live.isdisjoint(DIGEST.findall(result.name)[:1])


def find_abandoned_uploads(
    store: str, grace: timedelta = GRACE, now: datetime | None = None
) -> list[storage.Upload]:
    """Return uploads to an object store that killed runs left behind.

    Only those begun at least `grace`, and an hour, ago: they look like uploads under way. None,
    with a warning, where they cannot be listed.
    """
    now = now or datetime.now(UTC)
    try:
        uploads = storage.unfinished_uploads(store)
    except StorageError as error:
        log.warning("unfinished uploads stay: %s", error)
        return []
    return [upload for upload in uploads if now - upload.begun >= max(grace, MIN_UPLOAD_AGE)]


def remove_garbage(
    store: str, files: Iterable[storage.FileEntry], uploads: Iterable[storage.Upload] = ()
) -> None:
    """Remove what `find_garbage` and `find_abandoned_uploads` returned."""
    for file in files:
        storage.remove(storage.join(store, file.name))
    for upload in uploads:
        storage.abort_upload(store, upload)


def _references(
    store: str, artifacts: Iterable[Artifact], selections: Iterable[Artifact]
) -> tuple[set[str], set[str]]:
    """Return the pools and the fingerprints that `selections` refer to.

    If one of them does not say, all there are.
    """
    pools: set[str] = set()
    fingerprints: set[str] = set()
    for artifact in selections:
        place = storage.join(store, artifact.folder, SELECTION_FILE)
        try:
            fields = storage.read_json(place)
        except (MissingFile, DamagedArtifact):
            continue  # unfinished: nothing can use it
        provenance = _provenance(place, fields)
        if provenance is None:
            log.warning(
                "all pools and fingerprints stay: %s does not say what it was made of",
                artifact.folder,
            )
            everything = {artifact.digest for artifact in artifacts}
            return everything, everything
        pools.add(provenance.pool)
        fingerprints.update(provenance.fingerprints.values())
    return pools, fingerprints


def _provenance(place: str, fields: Any) -> SelectionProvenance | None:
    """Return what a selection depends on; None if its JSON, of another version, does not say."""
    try:
        return storage.as_record(place, fields, SelectionSummary).provenance
    except DamagedArtifact:
        return None


def _ids_of(store: str, pools: Iterable[Artifact]) -> pd.Index[str] | None:
    """Return the ids of all `pools`; None if one cannot be read: nobody knows its parts then."""
    ids = pd.Index([], dtype=object)
    try:
        for artifact in pools:
            pool = Pool.open(pool_uri(store, artifact.digest))
            distinct_ids, _ = pool.distinct
            ids = ids.union(pd.Index(distinct_ids.to_pandas().astype(object)))
    except StorageError as error:
        log.warning("all parts of fingerprints in use stay, since a pool cannot be read: %s", error)
        return None
    return ids


def _unused_parts(
    store: str, artifact: Artifact, ids: pd.Index[str] | None
) -> list[storage.FileEntry]:
    """Return the parts without a row of a pool that stays; `verify` looks after damaged parts."""
    if ids is None:
        return []
    part_set = PartSet(uri=storage.join(store, artifact.folder), fingerprint=artifact.digest)
    unused = {
        part_set.part(digest).rsplit("/", 1)[1]
        for digest, part_ids in part_set.index().items()
        if not (ids.get_indexer(part_ids.to_pandas()) >= 0).any()
    }
    return [file for file in artifact.files if file.name.rsplit("/", 1)[1] in unused]
