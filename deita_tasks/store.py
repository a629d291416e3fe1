"""Looking after a store: what is in it, what it takes, and what can go. (Whether it is whole: `verify.py`.)

All of it is safe beside running flows: a part that is merged or removed while a flow reads it is looked for once more (`parts.py`), and
what that flow then does not find it computes on the next run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, MissingFile, StorageError
from deita_tasks.parts import PART_NAME, Family, part_digest
from deita_tasks.pool import Pool

log = logging.getLogger(__name__)

GRACE = timedelta(days=7)  # what is younger may belong to a run that is under way, or that will be started again
MERGED_ROWS = 50_000
DIGEST = re.compile(r"[0-9a-f]{32}")
DEPTHS = {"pools": 1, "selections": 1, "embeddings": 1, "scores": 2, "plans": 0, "results": 0}  # folders below the kind


@dataclass(frozen=True)
class Artifact:
    """A pool, a selection, the parts of one fingerprint; or all plans, all results, all drafts that nobody finished."""

    kind: str  # pools, selections, embeddings, scores/complexity, scores/quality, plans, results, drafts
    digest: str  # "" for plans, results and drafts
    files: tuple[storage.Found, ...]  # names from the store on

    @property
    def folder(self) -> str:
        """Its place in the store."""
        return f"{self.kind}/{self.digest}" if self.digest else self.kind

    @property
    def bytes(self) -> int:
        """What its files take."""
        return sum(file.bytes for file in self.files)

    @property
    def newest(self) -> datetime:
        """When one of its files was last written."""
        return max(file.modified for file in self.files)


@dataclass(frozen=True)
class Described:
    """An artifact with its rows (None where it has none to count, or cannot be read) and what it stands for."""

    artifact: Artifact
    rows: int | None
    stands_for: str


@dataclass(frozen=True)
class Merged:
    """What compaction did to one family: so many parts became so many."""

    folder: str
    before: int
    after: int


def artifacts(store: str) -> list[Artifact]:
    """What lies in the store, from one listing; files that are none of ours are left out."""
    found: dict[tuple[str, str], list[storage.Found]] = {}
    for file in storage.find(store):
        steps = file.name.split("/")
        if steps[0] not in DEPTHS or len(steps) < 2:
            continue
        depth = DEPTHS[steps[0]]
        if steps[-1].startswith("."):
            key = ("drafts", "")
        elif depth and len(steps) > depth + 1:
            key = ("/".join(steps[:depth]), steps[depth])
        else:
            key = (steps[0], "")
        found.setdefault(key, []).append(file)
    return [Artifact(kind, digest, tuple(files)) for (kind, digest), files in sorted(found.items())]


def describe(store: str) -> Iterator[Described]:
    """Every artifact with its rows and what it stands for; reads their descriptions and the footers of the parts."""
    for artifact in artifacts(store):
        try:
            yield Described(artifact, *_facts(store, artifact))
        except StorageError as error:
            yield Described(artifact, None, f"unfinished or damaged ({error})")


def _facts(store: str, artifact: Artifact) -> tuple[int | None, str]:
    uri = storage.join(store, artifact.folder)
    if artifact.kind == "pools":
        summary = storage.read_json(storage.join(uri, "pool.json"))
        return summary["good"] + summary["quarantined"], ", ".join(file["uri"] for file in summary.get("inputs", []))
    if artifact.kind == "selections":
        summary = storage.read_json(storage.join(uri, "selection.json"))
        made_of = summary.get("made_of", {})
        selector = made_of.get("selector", {})
        options = " ".join(f"{name}={value}" for name, value in selector.get("options", {}).items())
        return summary["counts"]["selected"], f"{selector.get('name', '?')} {options} from pool {made_of.get('pool', '?')}"
    if artifact.digest:
        family = Family(uri, artifact.digest)
        return sum(_rows(family, digest) for digest in family.listed()), stands_for(
            storage.read_json(storage.join(uri, "fingerprint.json"))
        )
    names = {"plans": "rows to compute", "results": "what Prefect remembers", "drafts": "left by runs that were killed"}
    return None, names[artifact.kind]


def _rows(family: Family, digest: str) -> int:
    try:
        with storage.parquet_file(family.part(digest)) as parquet:
            return int(parquet.metadata.num_rows)
    except (DamagedArtifact, MissingFile):
        return 0


def stands_for(contract: Mapping[str, Any]) -> str:
    """A fingerprint in a few words: the backend and its model, or the backend and its numbers."""
    revision = str(contract.get("revision") or contract.get("files_sha256") or "")[:12]
    if "model" in contract or revision:
        model = f" {contract.get('model', '')}{'@' + revision if revision else ''}"
        return f"{contract.get('backend', '?')}{model} {contract.get('dtype', '')}".strip()
    numbers = " ".join(f"{name}={value}" for name, value in contract.items() if isinstance(value, int | float))
    return f"{contract.get('backend', '?')} {numbers}".strip()


# ---- what can go


def garbage(store: str, grace: timedelta = GRACE, forget: timedelta | None = None, now: datetime | None = None) -> list[storage.Found]:
    """The files that no selection refers to, and plans and drafts; none that is younger than `grace`.

    `forget`: selections older than this go too, and with them what only they referred to. A part stays as long as one of
    its rows is in a pool that stays.
    """
    now = now or datetime.now(UTC)
    everything = artifacts(store)
    selections = [one for one in everything if one.kind == "selections" and (forget is None or now - one.newest < max(forget, grace))]
    pools, families = _referred_to(store, everything, selections)
    kept = {("selections", one.digest) for one in selections}
    kept |= {("pools", one.digest) for one in everything if one.kind == "pools" and (one.digest in pools or now - one.newest < grace)}
    ids = _ids_of(store, [digest for kind, digest in kept if kind == "pools"])
    alive = {digest for _, digest in kept} | families | {part for one in everything for part in _parts(one)}
    files: list[storage.Found] = []
    for one in everything:
        if one.kind == "embeddings" or one.kind.startswith("scores/"):
            files += _needless_parts(store, one, ids) if one.digest in families else _whole_or_nothing(one, now, grace)
        elif one.kind == "results":
            files += [file for file in one.files if alive.isdisjoint(DIGEST.findall(file.name)[-1:])]  # the last digest is what it is of
        elif (one.kind, one.digest) not in kept:
            files += one.files
    return [file for file in files if now - file.modified >= grace]


def abandoned(store: str, grace: timedelta = GRACE, now: datetime | None = None) -> list[storage.Upload]:
    """Uploads to an object store that killed runs have left behind, begun `grace` ago or earlier, and an hour in any case: they cannot be
    told from those that are under way. None, and a warning, where one may not list them."""
    try:
        found = storage.unfinished_uploads(store)
    except StorageError as error:
        log.warning("unfinished uploads stay: %s", error)
        return []
    return [upload for upload in found if (now or datetime.now(UTC)) - upload.begun >= max(grace, timedelta(hours=1))]


def collect(store: str, files: Iterable[storage.Found], uploads: Iterable[storage.Upload] = ()) -> None:
    """Remove what `garbage` and `abandoned` have named."""
    for file in files:
        storage.remove(storage.join(store, file.name))
    for upload in uploads:
        storage.give_up(store, upload)


def _referred_to(store: str, everything: Iterable[Artifact], selections: Iterable[Artifact]) -> tuple[set[str], set[str]]:
    """The pools and the fingerprints that `selections` were made of; all there are where one of them does not say."""
    pools, families = set(), set()
    for one in selections:
        try:
            summary = storage.read_json(storage.join(store, one.folder, "selection.json"))
        except (MissingFile, DamagedArtifact):
            continue  # not finished: nothing in it can be used
        if "made_of" not in summary:
            log.warning("all pools and fingerprints stay: %s does not say what it was made of", one.folder)
            return {other.digest for other in everything}, {other.digest for other in everything}
        pools.add(summary["made_of"]["pool"])
        families.update(summary["made_of"]["families"].values())
    return pools, families


def _ids_of(store: str, pools: Iterable[str]) -> pd.Index[str] | None:
    """The ids of all these pools; None where one of them cannot be read, for then nobody knows which parts it needs."""
    ids = pd.Index([], dtype=object)
    try:
        for digest in pools:
            ids = ids.union(pd.Index(Pool.open(storage.join(store, "pools", digest)).index(["id"])["id"].to_pandas().astype(object)))
    except StorageError as error:
        log.warning("all parts of fingerprints in use stay, since a pool cannot be read: %s", error)
        return None
    return ids


def _parts(artifact: Artifact) -> Iterator[str]:
    for file in artifact.files:
        if match := PART_NAME.fullmatch(file.name.rsplit("/", 1)[1]):
            yield match[1]


def _needless_parts(store: str, family: Artifact, ids: pd.Index[str] | None) -> list[storage.Found]:
    """The parts of a family in use that have no row of a pool that stays. A damaged part is `verify`'s to name."""
    if ids is None:
        return []
    held = Family(storage.join(store, family.folder), family.digest).index()
    needless = {f"part-{digest}.parquet" for digest, rows in held.items() if not (ids.get_indexer(rows.to_pandas()) >= 0).any()}
    return [file for file in family.files if file.name.rsplit("/", 1)[1] in needless]


def _whole_or_nothing(family: Artifact, now: datetime, grace: timedelta) -> list[storage.Found]:
    return list(family.files) if now - family.newest >= grace else []


# ---- many small parts become few


def compact(store: str, merged_rows: int = MERGED_ROWS) -> Iterator[Merged]:
    """Merge the parts of every family that hold less than half of `merged_rows` rows into parts of about as many.

    A new part is there before the old ones go, so every row is in one of them at any time. Damaged parts are left alone.
    """
    for artifact in artifacts(store):
        if artifact.kind == "embeddings" or artifact.kind.startswith("scores/"):
            family = Family(storage.join(store, artifact.folder), artifact.digest)
            held = family.index()
            small = {digest: ids for digest, ids in held.items() if len(ids) < merged_rows / 2}
            after = len(held) - len(small) + sum(_merge(family, group) for group in _groups(small, merged_rows))
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


def _merge(family: Family, group: Mapping[str, pa.Array]) -> int:
    """Merge some parts into one; returns how many there are of them then: 1, or as many as before where one has gone meanwhile."""
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


def _distinct(family: Family, group: Iterable[str]) -> Iterator[pa.Table]:
    """The rows of some parts, a part at a time, each id once."""
    seen: set[str] = set()
    for digest in group:
        table = storage.read_table(family.part(digest))
        ids = table["id"].to_pylist()
        fresh = np.array([id not in seen for id in ids], np.bool_)
        seen.update(ids)
        if fresh.any():
            yield table.filter(pa.array(fresh))
