"""The manifest of a result: what went in, how it was made, what came out."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    model_validator,
)

from deita_tasks import storage
from deita_tasks.strict_json import strict_json

FORMAT_VERSION = 1
PACKAGES = (
    "deita-tasks",
    "prefect",
    "torch",
    "transformers",
    "sentence-transformers",
    "numpy",
    "pandas",
    "pyarrow",
)


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=()
    )


class InputFile(_Part):
    """One file of the pool."""

    uri: str
    digest: str
    rows: NonNegativeInt
    format: str  # as detected, or as given


class Model(_Part):
    """A model that scored or embedded; `revision` and `licence` are None where nobody states them."""

    use: str  # complexity, quality or embedding
    id: str
    revision: str | None = None
    licence: str | None = None


class Counts(_Part):
    """Input rows by decision; they add up to the rows read."""

    read: NonNegativeInt
    selected: NonNegativeInt
    too_similar: NonNegativeInt
    below_budget: NonNegativeInt
    duplicate: NonNegativeInt
    quarantined: NonNegativeInt
    unscorable: NonNegativeInt

    @model_validator(mode="after")
    def add_up(self) -> Counts:
        decided = sum(self.model_dump(exclude={"read"}).values())
        if decided != self.read:
            raise ValueError(f"the decisions add up to {decided} rows where {self.read} were read")
        return self


class Work(_Part):
    """Rows by stage."""

    complexity: NonNegativeInt = 0
    quality: NonNegativeInt = 0
    embedding: NonNegativeInt = 0


class OutputFile(_Part):
    """A file of the output folder."""

    sha256: str
    bytes: NonNegativeInt


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


class Provenance(_Part):
    """What a result was made from, how, and which files it is: the part of manifest.json that every
    kind of result has.
    """

    format_version: int = FORMAT_VERSION
    created: Annotated[AwareDatetime, AfterValidator(_utc)] = Field(
        default_factory=lambda: datetime.now(UTC)
    )
    preset: str | None
    parameters: dict[str, Any]  # as given
    inputs: list[InputFile]
    pool: str  # URI of the pool artifact in the store
    models: list[Model]
    fingerprints: dict[
        str, Any
    ]  # complexity, quality, embedding, selection; None for a stage that did not run
    computed: Work
    reused: Work
    timings: dict[str, NonNegativeFloat]  # seconds by stage
    versions: dict[str, str] = Field(default_factory=lambda: package_versions())
    outputs: dict[str, OutputFile] = Field(default_factory=dict)

    def to_json(self) -> str:
        """The text of manifest.json."""
        return self.model_dump_json(indent=2) + "\n"

    def settings(self) -> list[tuple[str, str]]:
        """The parameters for a table: "group.name" and the value as text."""
        return [
            (name, value if isinstance(value, str) else strict_json(value))
            for name, value in _flat(self.parameters)
        ]

    @staticmethod
    def pretty(value: Any) -> str:
        """A JSON value over several lines."""
        return json.dumps(value, indent=2, ensure_ascii=False)


class Manifest(Provenance):
    """manifest.json of a selection."""

    seed: int | None
    counts: Counts
    truncated: Work  # rows of which a model read only a part


class SweepManifest(Provenance):
    """manifest.json of a sweep. `candidates`: rows that could be chosen; `coverage_rows`: how many
    of them coverage was measured over.
    """

    candidates: NonNegativeInt
    coverage_rows: NonNegativeInt


def _flat(parameters: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in parameters.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{group}{name}.")
        else:
            yield f"{group}{name}", value


def package_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Python's version and those of the installed ones of `packages`."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def digest_outputs(folder: Path) -> dict[str, OutputFile]:
    """Every file under `folder` but manifest.json: its path there, with forward slashes -> sha256
    and size.
    """
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path != folder / "manifest.json"
    )
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in files}


def digest_file(path: Path) -> OutputFile:
    """The sha256 (hex) and size of a local file."""
    return OutputFile(sha256=storage.sha256_of(str(path)), bytes=path.stat().st_size)
