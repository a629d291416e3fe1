"""Find and remove what a store no longer needs.

No selection and no run under way refers to it, or a killed run left it. Runs may go on meanwhile:
their marks (`runs.py`) keep what they need. Only files with names of ours are removed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa

from deita_tasks import storage
from deita_tasks.artifacts.inventory import Artifact, artifact_of, list_artifacts
from deita_tasks.artifacts.parts import CLAIM, PartSet
from deita_tasks.artifacts.pool import Pool, pool_uri
from deita_tasks.artifacts.runs import LIFETIME, RunMark, grace_beside, marked_runs, read_marks
from deita_tasks.artifacts.selection import SelectionProvenance, read_selection
from deita_tasks.errors import DamagedArtifact, MissingFile, StorageError

log = logging.getLogger(__name__)

GRACE = timedelta(days=7)  # a run that was killed may come back to younger files
MIN_UPLOAD_AGE = timedelta(hours=1)
DIGEST = re.compile(r"[0-9a-f]{32}")


def find_garbage(
    store: str,
    grace: timedelta = GRACE,
    forget: timedelta | None = None,
    now: datetime | None = None,
) -> list[storage.FileEntry]:
    """Return the files that no selection and no run refers to, plans and drafts.

    None younger than `grace`, or than the first run under way. forget: also selections and models
    older than this, and what only they refer to. A part stays as long as one of its rows is in a
    pool that stays.
    """
    now = now or datetime.now(UTC)
    artifacts = [each for each in list_artifacts(store) if each.kind != "replies"]  # paid for
    marks = read_marks(store, now)
    grace = grace_beside(marks, grace, now)
    lasting = [artifact for artifact in artifacts if artifact.kind in ("selections", "models")]
    if forget is not None:
        in_use = {mark.selection for mark in marks}
        lasting = _younger(lasting, now - max(forget, grace), in_use)
    selections = [artifact for artifact in lasting if artifact.kind == "selections"]
    used_pools, fingerprints, others = _references(store, artifacts, selections, marks)
    pools = {
        artifact.digest
        for artifact in artifacts
        if artifact.kind == "pools"
        and (artifact.digest in used_pools or now - artifact.newest < grace)
    }
    ids = _ids_of(store, pools | used_pools)
    live = {artifact.digest for artifact in lasting} | pools | fingerprints | others
    garbage: list[storage.FileEntry] = []
    for artifact in artifacts:
        if artifact.kind in ("trainings", "evaluations", "chains", "heads"):
            garbage += artifact.files if now - artifact.newest >= grace else ()
        elif artifact.is_part_set and artifact.digest in fingerprints:
            garbage += _unused_parts(store, artifact, ids)
        elif artifact.is_part_set:
            garbage += artifact.files if now - artifact.newest >= grace else ()
        elif artifact.kind == "results":
            garbage += [file for file in artifact.files if not _is_live(file, live)]
        elif artifact.kind == "runs":
            garbage += [file for file in artifact.files if now - file.modified >= LIFETIME]
        elif artifact.digest not in live:
            garbage += artifact.files
    return [file for file in garbage if now - file.modified >= grace]


def _younger(
    artifacts: Sequence[Artifact], since: datetime, in_use: Collection[str]
) -> list[Artifact]:
    """Return the artifacts that a run under way needs, or that have a file younger than `since`."""
    return [each for each in artifacts if each.digest in in_use or each.newest > since]


def _is_live(result: storage.FileEntry, live: set[str]) -> bool:
    """Return whether a result that Prefect remembers is of an artifact that exists.

    The first digest in its name is of the pool, the selection, the model or the fingerprint.
    """
    return not live.isdisjoint(DIGEST.findall(result.name)[:1])


def find_abandoned_uploads(
    store: str, grace: timedelta = GRACE, now: datetime | None = None
) -> list[storage.Upload]:
    """Return uploads to an object store that killed runs left behind.

    Only those begun at least `grace`, and an hour, ago, and before the first run under way: they
    look like uploads under way. None, with a warning, where they cannot be listed.
    """
    now = now or datetime.now(UTC)
    try:
        uploads = storage.unfinished_uploads(store)
        grace = grace_beside(read_marks(store, now), max(grace, MIN_UPLOAD_AGE), now)
    except StorageError as error:
        log.warning("unfinished uploads stay: %s", error)
        return []
    folder = storage.filesystem(store)[1].strip("/").partition("/")[2]
    return [
        upload
        for upload in uploads
        if now - upload.begun >= grace
        and artifact_of(upload.key.removeprefix(folder).strip("/")) is not None
    ]


def remove_garbage(
    store: str,
    files: Sequence[storage.FileEntry],
    uploads: Iterable[storage.Upload] = (),
    known_runs: Collection[str] = (),
) -> int:
    """Remove what `find_garbage` and `find_abandoned_uploads` returned; return how many files.

    Stops at the first run that is not among `known_runs`, those that had a mark before the search:
    it may need what was garbage then.
    """
    for number, file in enumerate(files):
        if not marked_runs(store) <= set(known_runs):
            log.warning("a run has begun: %d files stay; run gc again", len(files) - number)
            return number
        storage.remove(storage.join(store, file.name))
    for upload in uploads:
        storage.abort_upload(store, upload)
    return len(files)


def _references(
    store: str,
    artifacts: Iterable[Artifact],
    selections: Iterable[Artifact],
    runs: Collection[RunMark],
) -> tuple[set[str], set[str], set[str]]:
    """Return the pools, the fingerprints, and the exclusions and references in use.

    That is, those that `selections` and `runs` refer to.

    If a selection does not say, all there are.
    """
    pools = {run.pool for run in runs}
    fingerprints = {digest for run in runs for digest in run.fingerprints.values()}
    others = {digest for run in runs for digest in (*run.exclusions, *run.references)}
    for artifact in selections:
        try:
            provenance = _provenance(storage.join(store, artifact.folder))
        except MissingFile:
            continue  # unfinished: nothing can use it
        if provenance is None:
            log.warning(
                "everything that a selection may need stays: %s does not say what it was made of; "
                "`deita store verify` says whether it is damaged",
                artifact.folder,
            )
            pools.update(each.digest for each in artifacts if each.kind == "pools")
            fingerprints.update(each.digest for each in artifacts if each.is_part_set)
            others.update(
                each.digest for each in artifacts if each.kind in ("exclusions", "references")
            )
            return pools, fingerprints, others
        pools.add(provenance.pool)
        fingerprints.update(provenance.fingerprints.values())
        others.update(provenance.exclusions, provenance.references)
    return pools, fingerprints, others


def _provenance(uri: str) -> SelectionProvenance | None:
    """Return what a selection depends on; None if it is damaged or of another version."""
    try:
        return read_selection(uri).provenance
    except DamagedArtifact:
        return None


def _ids_of(store: str, pools: Iterable[str]) -> pd.Index[str] | None:
    """Return the ids of all `pools` that parts may have: those of whole rows and of texts.

    None if a pool cannot be read: nobody knows its parts then.
    """
    ids = pd.Index([], dtype=object)
    try:
        for digest in pools:
            pool = Pool.open(pool_uri(store, digest))
            keys = pa.chunked_array([pool.distinct[0], pool.text_ids]).unique()
            ids = ids.union(pd.Index(keys.to_pandas().astype(object)))
    except StorageError as error:
        log.warning("all parts of fingerprints in use stay, since a pool cannot be read: %s", error)
        return None
    return ids


def _unused_parts(
    store: str, artifact: Artifact, ids: pd.Index[str] | None
) -> list[storage.FileEntry]:
    """Return the parts without a row of a pool that stays, and the claims of killed runs.

    `verify` looks after damaged parts.
    """
    if ids is None:
        return []
    part_set = PartSet(uri=storage.join(store, artifact.folder), fingerprint=artifact.digest)
    unused = {
        part_set.part(digest).rsplit("/", 1)[1]
        for digest, part_ids in part_set.index().items()
        if not (ids.get_indexer(part_ids.to_pandas()) >= 0).any()
    }
    names = {file: file.name.rsplit("/", 1)[1] for file in artifact.files}
    return [file for file in names if names[file] in unused or names[file].startswith(CLAIM)]
