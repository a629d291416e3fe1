"""What can go from a store: whatever no selection refers to, and what killed runs have left.

Safe beside running flows: a part that is removed while a flow reads it is looked for once more
(`parts.py`), and what that flow then does not find it computes on the next run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import pandas as pd

from deita_tasks import storage
from deita_tasks.artifacts.inventory import Artifact, artifacts
from deita_tasks.artifacts.parts import PART_NAME, PartSet
from deita_tasks.artifacts.pool import Pool
from deita_tasks.errors import DamagedArtifact, MissingFile, StorageError

log = logging.getLogger(__name__)

GRACE = timedelta(
    days=7
)  # what is younger may belong to a run that is under way, or that will be started again
DIGEST = re.compile(r"[0-9a-f]{32}")


def garbage(
    store: str,
    grace: timedelta = GRACE,
    forget: timedelta | None = None,
    now: datetime | None = None,
) -> list[storage.Found]:
    """The files that no selection refers to, and plans and drafts; none that is younger than
    `grace`.

    `forget`: selections older than this go too, and with them what only they referred to. A part
    stays as long as one of its rows is in a pool that stays.
    """
    now = now or datetime.now(UTC)
    everything = artifacts(store)
    selections = [
        one
        for one in everything
        if one.kind == "selections" and (forget is None or now - one.newest < max(forget, grace))
    ]
    pools, families = _referred_to(store, everything, selections)
    kept = {("selections", one.digest) for one in selections}
    kept |= {
        ("pools", one.digest)
        for one in everything
        if one.kind == "pools" and (one.digest in pools or now - one.newest < grace)
    }
    ids = _ids_of(store, [digest for kind, digest in kept if kind == "pools"])
    alive = (
        {digest for _, digest in kept}
        | families
        | {part for one in everything for part in _parts(one)}
    )
    files: list[storage.Found] = []
    for one in everything:
        if one.kind == "embeddings" or one.kind.startswith("scores/"):
            files += (
                _needless_parts(store, one, ids)
                if one.digest in families
                else _whole_or_nothing(one, now, grace)
            )
        elif one.kind == "results":
            files += [
                file for file in one.files if alive.isdisjoint(DIGEST.findall(file.name)[-1:])
            ]  # the last digest is what it is of
        elif (one.kind, one.digest) not in kept:
            files += one.files
    return [file for file in files if now - file.modified >= grace]


def abandoned(
    store: str, grace: timedelta = GRACE, now: datetime | None = None
) -> list[storage.Upload]:
    """Uploads to an object store that killed runs have left behind, begun `grace` ago or earlier,
    and an hour in any case: they cannot be told from those that are under way. None, and a warning,
    where one may not list them.
    """
    try:
        found = storage.unfinished_uploads(store)
    except StorageError as error:
        log.warning("unfinished uploads stay: %s", error)
        return []
    return [
        upload
        for upload in found
        if (now or datetime.now(UTC)) - upload.begun >= max(grace, timedelta(hours=1))
    ]


def collect(
    store: str, files: Iterable[storage.Found], uploads: Iterable[storage.Upload] = ()
) -> None:
    """Remove what `garbage` and `abandoned` have named."""
    for file in files:
        storage.remove(storage.join(store, file.name))
    for upload in uploads:
        storage.give_up(store, upload)


def _referred_to(
    store: str, everything: Iterable[Artifact], selections: Iterable[Artifact]
) -> tuple[set[str], set[str]]:
    """The pools and the fingerprints that `selections` were made of; all there are where one of
    them does not say.
    """
    pools, families = set(), set()
    for one in selections:
        try:
            summary = storage.read_json(storage.join(store, one.folder, "selection.json"))
        except (MissingFile, DamagedArtifact):
            continue  # not finished: nothing in it can be used
        if "made_of" not in summary:
            log.warning(
                "all pools and fingerprints stay: %s does not say what it was made of", one.folder
            )
            return {other.digest for other in everything}, {other.digest for other in everything}
        pools.add(summary["made_of"]["pool"])
        families.update(summary["made_of"]["families"].values())
    return pools, families


def _ids_of(store: str, pools: Iterable[str]) -> pd.Index[str] | None:
    """The ids of all these pools; None where one of them cannot be read, for then nobody knows
    which parts it needs.
    """
    ids = pd.Index([], dtype=object)
    try:
        for digest in pools:
            ids = ids.union(
                pd.Index(
                    Pool.open(storage.join(store, "pools", digest))
                    .index(["id"])["id"]
                    .to_pandas()
                    .astype(object)
                )
            )
    except StorageError as error:
        log.warning("all parts of fingerprints in use stay, since a pool cannot be read: %s", error)
        return None
    return ids


def _parts(artifact: Artifact) -> Iterator[str]:
    for file in artifact.files:
        if match := PART_NAME.fullmatch(file.name.rsplit("/", 1)[1]):
            yield match[1]


def _needless_parts(store: str, family: Artifact, ids: pd.Index[str] | None) -> list[storage.Found]:
    """The parts of a family in use that have no row of a pool that stays. A damaged part is
    `verify`'s to name.
    """
    if ids is None:
        return []
    held = PartSet(storage.join(store, family.folder), family.digest).index()
    needless = {
        f"part-{digest}.parquet"
        for digest, rows in held.items()
        if not (ids.get_indexer(rows.to_pandas()) >= 0).any()
    }
    return [file for file in family.files if file.name.rsplit("/", 1)[1] in needless]


def _whole_or_nothing(family: Artifact, now: datetime, grace: timedelta) -> list[storage.Found]:
    return list(family.files) if now - family.newest >= grace else []
