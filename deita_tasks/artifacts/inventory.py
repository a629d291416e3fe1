"""What lies in a store: every artifact with its rows, its size and what it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deita_tasks import storage
from deita_tasks.artifacts.parts import PartSet
from deita_tasks.errors import DamagedArtifact, MissingFile, StorageError

DEPTHS = {
    "pools": 1,
    "selections": 1,
    "embeddings": 1,
    "scores": 2,
    "plans": 0,
    "results": 0,
}  # folders below the kind


@dataclass(frozen=True)
class Artifact:
    """A pool, a selection, the parts of one fingerprint; or all plans, all results, all drafts that
    nobody finished.
    """

    # pools, selections, embeddings, scores/complexity, scores/quality, plans, results, drafts
    kind: str
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
    """An artifact with its rows (None where it has none to count, or cannot be read) and what it
    stands for.
    """

    artifact: Artifact
    rows: int | None
    stands_for: str


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
    """Every artifact with its rows and what it stands for; reads their descriptions and the footers
    of the parts.
    """
    for artifact in artifacts(store):
        try:
            yield Described(artifact, *_facts(store, artifact))
        except StorageError as error:
            yield Described(artifact, None, f"unfinished or damaged ({error})")


def _facts(store: str, artifact: Artifact) -> tuple[int | None, str]:
    uri = storage.join(store, artifact.folder)
    if artifact.kind == "pools":
        summary = storage.read_json(storage.join(uri, "pool.json"))
        return summary["good"] + summary["quarantined"], ", ".join(
            file["uri"] for file in summary.get("inputs", [])
        )
    if artifact.kind == "selections":
        summary = storage.read_json(storage.join(uri, "selection.json"))
        made_of = summary.get("made_of", {})
        selector = made_of.get("selector", {})
        options = " ".join(f"{name}={value}" for name, value in selector.get("options", {}).items())
        return summary["counts"][
            "selected"
        ], f"{selector.get('name', '?')} {options} from pool {made_of.get('pool', '?')}"
    if artifact.digest:
        family = PartSet(uri, artifact.digest)
        return sum(_rows(family, digest) for digest in family.listed()), stands_for(
            storage.read_json(storage.join(uri, "fingerprint.json"))
        )
    names = {
        "plans": "rows to compute",
        "results": "what Prefect remembers",
        "drafts": "left by runs that were killed",
    }
    return None, names[artifact.kind]


def _rows(family: PartSet, digest: str) -> int:
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
    numbers = " ".join(
        f"{name}={value}" for name, value in contract.items() if isinstance(value, int | float)
    )
    return f"{contract.get('backend', '?')} {numbers}".strip()
