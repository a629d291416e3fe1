"""List what a store holds: every artifact with its rows, its size and what it stands for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from deita_tasks import storage
from deita_tasks.artifacts.exclusions import read_summary
from deita_tasks.artifacts.models import read_outline
from deita_tasks.artifacts.parts import CLAIM, FINGERPRINT_FILE, PART_NAME, PartSet
from deita_tasks.artifacts.pool import POOL_FILE, PoolSummary
from deita_tasks.artifacts.references import read_summary as read_reference_summary
from deita_tasks.artifacts.runs import MARK_NAME
from deita_tasks.artifacts.selection import SelectionSummary, read_selection
from deita_tasks.catalogue import NAMED_SCORES
from deita_tasks.components import Fingerprint
from deita_tasks.errors import DamagedArtifact, MissingFile, StorageError

DIGEST = r"[0-9a-f]{32}"
PART_FILES = re.compile(rf"{PART_NAME.pattern}|{re.escape(FINGERPRINT_FILE)}|{CLAIM}{DIGEST}\.json")
# Names of our files, by kind: those below <kind>/<digest>/, and those directly in <kind>/. Any
# other file is somebody's own: it is neither counted nor removed.
FOLDER_FILES = {
    "pools": re.compile(r"rows-\d{5,}\.parquet|(quarantine|cuts)\.parquet|pool\.json"),
    "selections": re.compile(r"(decisions|kept|excluded)\.parquet|selection\.json"),
    "exclusions": re.compile(r"(excluded|tokens)\.parquet|exclusions\.json"),
    "references": re.compile(r"vectors\.parquet|reference\.json"),
    "tokens": PART_FILES,
    "scores/complexity": PART_FILES,
    "scores/quality": PART_FILES,
    **{f"scores/{name}": PART_FILES for name in NAMED_SCORES},
    "scores/provided": PART_FILES,
    "embeddings": PART_FILES,
}
KIND_FILES = {
    "plans": re.compile(rf"({DIGEST}-)?{DIGEST}\.parquet"),
    "results": re.compile(rf"[a-z]+(-[a-z]+)*(-{DIGEST}){{1,2}}"),
    "runs": MARK_NAME,
}
# Every file below <kind>/<digest>/ is ours: libraries name those of a model.
FOLDERS = re.compile(rf"(models|trainings|evaluations|chains|heads)/({DIGEST})/.+")
REPLIES = re.compile(rf"replies/[0-9a-f]{{2}}/{DIGEST}\.json")
UNCOUNTED = {
    "trainings": "data and checkpoints of a training that has not ended",
    "evaluations": "what models were measured on",
    "chains": "rewritten or judged texts, made from replies",
    "heads": "heads of the scorer mini, made from judged texts",
}
LOOSE_FILES = {
    "plans": "rows to compute",
    "results": "what Prefect remembers",
    "replies": "what chat models replied, each paid for",
    "runs": "marks of runs under way",
    "drafts": "left by runs that were killed",
}


@dataclass(frozen=True)
class Artifact:
    """A pool, selection, exclusions, reference or the parts of one fingerprint; or all of a kind.

    kind: pools, selections, exclusions, references, tokens, embeddings, scores/complexity,
    scores/quality, models, trainings, evaluations, chains, heads; or plans, results, replies, runs,
    drafts, which have the digest "". files: their names are paths from the store.
    """

    kind: str
    digest: str
    files: tuple[storage.FileEntry, ...]

    @property
    def folder(self) -> str:
        """Its folder in the store."""
        return f"{self.kind}/{self.digest}" if self.digest else self.kind

    @property
    def is_part_set(self) -> bool:
        """Whether it holds scores, embeddings or token counts."""
        return self.kind in ("embeddings", "tokens") or self.kind.startswith("scores/")

    @property
    def bytes(self) -> int:
        """The size of its files together, in bytes, as the listing has it."""
        return sum(file.bytes for file in self.files)

    @property
    def newest(self) -> datetime:
        """When one of its files was last written, in UTC by the store's clock."""
        return max(file.modified for file in self.files)


@dataclass(frozen=True)
class ArtifactSummary:
    """An artifact, its rows (None if they cannot be counted) and what it stands for."""

    artifact: Artifact
    rows: int | None
    stands_for: str


def list_artifacts(store: str) -> list[Artifact]:
    """Return what lies in the store, by kind and digest; ignores files that are not ours.

    It reads one listing and no file. [] for a store that does not exist.
    """
    files: dict[tuple[str, str], list[storage.FileEntry]] = {}
    for file in storage.find(store):
        key = artifact_of(file.name)
        if key is not None:
            files.setdefault(key, []).append(file)
    return [Artifact(kind, digest, tuple(files[kind, digest])) for kind, digest in sorted(files)]


def artifact_of(name: str) -> tuple[str, str] | None:
    """Return kind and digest of the artifact that the file `name` belongs to; None if not ours.

    name: a path from the store. Kinds that are loose files have the digest "".
    """
    folder, _, file = name.rpartition("/")
    target = storage.draft_target(file)
    if target is not None:
        is_draft = artifact_of(f"{folder}/{target}") is not None
        return ("drafts", "") if is_draft else None
    if folder in KIND_FILES:
        return (folder, "") if KIND_FILES[folder].fullmatch(file) else None
    if REPLIES.fullmatch(name):
        return "replies", ""
    below = FOLDERS.fullmatch(name)
    if below is not None:
        return below[1], below[2]
    kind, _, digest = folder.rpartition("/")
    is_ours = kind in FOLDER_FILES and FOLDER_FILES[kind].fullmatch(file)
    return (kind, digest) if is_ours and re.fullmatch(DIGEST, digest) else None


def summarise(store: str) -> Iterator[ArtifactSummary]:
    """Yield every artifact with its rows and what it stands for.

    Reads their JSON descriptions and the footers of the parts.
    """
    for artifact in list_artifacts(store):
        uri = storage.join(store, artifact.folder)
        try:
            rows, stands_for = _describe(uri, artifact)
        except StorageError as error:
            rows, stands_for = None, f"unfinished or damaged ({error})"
        yield ArtifactSummary(artifact, rows, stands_for)


def _describe(uri: str, artifact: Artifact) -> tuple[int | None, str]:
    """Return the rows of an artifact and what it stands for, in a few words.

    None for a kind whose rows nothing counts. Raises StorageError for an unfinished or damaged one,
    but leaves damaged parts out of the rows and says how many there are.
    """
    if artifact.kind == "pools":
        pool = storage.read_record(storage.join(uri, POOL_FILE), PoolSummary)
        return pool.rows, ", ".join(file.uri for file in pool.inputs)
    if artifact.kind == "selections":
        selection = read_selection(uri)
        return selection.counts.selected, _describe_selection(selection)
    if artifact.kind == "exclusions":
        exclusions = read_summary(uri)
        return sum(exclusions.counts.values()), f"rows left out of pool {exclusions.pool}"
    if artifact.kind == "models":
        model = read_outline(uri)
        return model.preparation.job.rows, model.stands_for
    if artifact.kind in UNCOUNTED:
        return None, UNCOUNTED[artifact.kind]
    if artifact.kind == "references":
        return read_reference_summary(uri).texts, "texts that rows are compared with"
    if artifact.digest:
        part_set = PartSet(uri=uri, fingerprint=artifact.digest)
        counts = [_count_rows(part_set, digest) for digest in part_set.digests()]
        rows = sum(count for count in counts if count is not None)
        fingerprint = part_set.read_fingerprint()
        damaged = f"; damaged parts: {counts.count(None)}" if None in counts else ""
        return rows, describe_fingerprint(fingerprint) + damaged
    return None, LOOSE_FILES[artifact.kind]


def _describe_selection(selection: SelectionSummary) -> str:
    """Return strategy, options and pool; question marks for a selection of an early version."""
    provenance = selection.provenance
    if provenance is None:
        return "? from pool ?"
    options = [f"{name}={value}" for name, value in provenance.selector.options.items()]
    return f"{' '.join([provenance.selector.name, *options])} from pool {provenance.pool}"


def _count_rows(part_set: PartSet, digest: str) -> int | None:
    """Return the rows of a part; None if its footer is damaged."""
    try:
        with storage.parquet_file(part_set.part(digest)) as parquet:
            return int(parquet.metadata.num_rows)
    except MissingFile:
        return 0  # merged or removed since it was listed
    except DamagedArtifact:
        return None


def describe_fingerprint(fingerprint: Fingerprint) -> str:
    """Return a fingerprint in a few words: the backend and its model, or its numbers."""
    backend = fingerprint.get("backend", "?")
    revision = str(fingerprint.get("revision") or fingerprint.get("files_sha256") or "")[:12]
    if "model" in fingerprint or revision:
        model = fingerprint.get("model", "")
        at_revision = f"@{revision}" if revision else ""
        return f"{backend} {model}{at_revision} {fingerprint.get('dtype', '')}".strip()
    numbers = [
        f"{name}={value}" for name, value in fingerprint.items() if isinstance(value, int | float)
    ]
    return f"{backend} {' '.join(numbers)}".strip()
