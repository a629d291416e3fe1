"""manifest.json of a result: its inputs, how it was made, and its files."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from deita_tasks import storage
from deita_tasks.findings import Findings
from deita_tasks.lengths import LengthQuantile
from deita_tasks.storage import FileInfo
from deita_tasks.strict_json import JsonRecord, strict_json

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
FIRST_FIELDS = ("format_version", "created", "preset", "parameters", "inputs", "pool")
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


class InputFile(JsonRecord):
    """A file of the pool."""

    uri: str
    digest: str
    rows: NonNegativeInt
    format: str  # detected, or as the user set it


class PassedOver(JsonRecord):
    """A file or folder of the input that was not read, and why."""

    uri: str
    reason: str


class Model(JsonRecord):
    """A model that scored or embedded; `revision` and `licence` are None where unknown."""

    use: str  # complexity, quality or embedding
    id: str
    revision: str | None = None
    licence: str | None = None


class Counts(JsonRecord):
    """Input rows by decision; they add up to the rows read."""

    read: NonNegativeInt
    selected: NonNegativeInt
    too_similar: NonNegativeInt
    below_budget: NonNegativeInt
    stratum_full: NonNegativeInt = 0  # earlier versions counted these below the budget
    duplicate: NonNegativeInt
    quarantined: NonNegativeInt
    unscorable: NonNegativeInt
    contaminated: NonNegativeInt = 0
    too_long: NonNegativeInt = 0

    @property
    def excluded(self) -> int:
        """Rows that a filter excluded before any model worked."""
        return self.contaminated + self.too_long

    @model_validator(mode="after")
    def _add_up(self) -> Counts:
        """Raise ValueError unless each row read has one decision: no row is lost in silence."""
        decisions = sum(self.model_dump(exclude={"read"}).values())
        if decisions != self.read:
            raise ValueError(
                f"the decisions add up to {decisions} rows where {self.read} were read"
            )
        return self


class TokenUse(JsonRecord):
    """The tokens of a selection, as a training reads them: within its window.

    selected: of the selected rows. budget: the most there may be. window: of the training. lengths:
    of all rows of the pool, before the window. cut_rows: rows of the pool that were cut at a turn
    to fit, which left out so many turns (cut_turns); lengths are those after the cut.
    """

    selected: NonNegativeInt
    budget: int | None = None
    window: int | None = None
    lengths: list[LengthQuantile] = Field(default_factory=list)
    cut_rows: NonNegativeInt = 0
    cut_turns: NonNegativeInt = 0

    @property
    def left(self) -> int | None:
        """Tokens of the budget that no row takes; None without a budget."""
        return None if self.budget is None else self.budget - self.selected

    def sentences(self) -> list[str]:
        """Return what to know, a line each."""
        within = "" if self.window is None else f" within the window of {self.window:,}"
        spent = f"{self.selected:,} tokens are selected{within}"
        if self.budget is not None:
            spent += f"; of the budget of {self.budget:,}, {self.left:,} are left"
        quantiles = ", ".join(map(str, self.lengths))
        lines = [spent, f"tokens a row of the pool by quantile: {quantiles}"]
        if self.cut_rows:
            rows = "1 row of the pool is" if self.cut_rows == 1 else f"{self.cut_rows:,} rows are"
            lines.append(f"{rows} cut at a turn to fit, which leaves out {self.cut_turns:,} turns")
        return lines


class StratumCounts(JsonRecord):
    """A stratum: its rows, how many were to be kept, and how many were.

    column: whose values make the strata; "cluster" for clusters of vectors. tokens: selected, if
    the strata divide a budget in tokens; minimum and maximum then are tokens too.
    """

    column: str
    stratum: str
    rows: NonNegativeInt
    minimum: NonNegativeInt
    maximum: NonNegativeInt
    selected: NonNegativeInt
    tokens: NonNegativeInt | None = None


class RowsByStage(JsonRecord):
    """A number of rows for each stage; those of scores that rank_by names come after these."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, NonNegativeInt] = Field(init=False)

    complexity: NonNegativeInt = 0
    quality: NonNegativeInt = 0
    embedding: NonNegativeInt = 0


class RunFacts(JsonRecord):
    """The fields of a manifest that only the run knows."""

    preset: str | None
    parameters: dict[str, JsonValue]  # by group, as the user set them
    models: list[Model]
    fingerprints: dict[str, Any]  # by stage; None for a stage that did not run
    evaluation: Literal["lazy", "all"] = "all"
    computed: RowsByStage
    reused: RowsByStage
    skipped: RowsByStage = RowsByStage()  # rows without a value, which could not matter
    # By stage, the languages that its model was made for, where it says so.
    languages: dict[str, list[str]] = Field(default_factory=dict)
    timings: dict[str, NonNegativeFloat]  # seconds by stage
    passed_over: list[PassedOver] = Field(default_factory=list)


def _utc(moment: datetime) -> datetime:
    """Return the moment in UTC without a fraction of a second, as manifests show it."""
    return moment.astimezone(UTC).replace(microsecond=0)


class ResultManifest(JsonRecord):
    """What every kind of manifest.json says: from what a result was made, and its files."""

    format_version: int = FORMAT_VERSION
    created: Annotated[AwareDatetime, AfterValidator(_utc)] = Field(
        default_factory=lambda: datetime.now(UTC)
    )
    parameters: dict[str, JsonValue]  # by group, as the user set them
    fingerprints: dict[str, Any]
    inputs: list[InputFile]
    versions: dict[str, str] = Field(default_factory=lambda: package_versions())
    outputs: dict[str, FileInfo] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _in_file_order(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Put first what a reader of the file looks for first."""
        fields: dict[str, Any] = serialize(self)
        first = {name: fields[name] for name in FIRST_FIELDS if name in fields}
        return first | fields

    def to_json(self) -> str:
        """Return the text of manifest.json."""
        return json.dumps(self.to_file_fields(), indent=2, ensure_ascii=False) + "\n"

    def settings(self) -> list[tuple[str, str]]:
        """Return the parameters for a table: "group.name" and the value as text."""
        return [
            (name, value if isinstance(value, str) else strict_json(value))
            for name, value in _flat(self.parameters)
        ]

    @staticmethod
    def pretty(value: JsonValue) -> str:
        """Return a JSON value over several lines."""
        return json.dumps(value, indent=2, ensure_ascii=False)


class Provenance(ResultManifest, RunFacts):
    """How a selection or a sweep was made."""

    pool: str  # URI of the pool artifact in the store


class Manifest(Provenance):
    """manifest.json of a selection."""

    seed: int | None
    counts: Counts
    strata: list[StratumCounts] = Field(default_factory=list)
    truncated: RowsByStage  # rows that a model read in part
    left_out: NonNegativeInt = 0  # selected rows that complete_only keeps out of the subset
    findings: Findings = Findings()
    tokens: TokenUse | None = None  # if a tokenizer counts them
    notes: list[str] = Field(default_factory=list)  # of the filters

    def filter_sentences(self) -> list[str]:
        """Return how many tokens are selected, and what the filters could not do, a line each."""
        tokens = [] if self.tokens is None else self.tokens.sentences()
        return [*tokens, *(f"WARNING: {note}" for note in self.notes)]


class SweepManifest(Provenance):
    """manifest.json of a sweep.

    candidates: rows that could be selected. coverage_rows: the sample that coverage was measured
    over.
    """

    candidates: NonNegativeInt
    coverage_rows: NonNegativeInt


def _flat(parameters: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each parameter; an empty mapping is a value."""
    for name, value in parameters.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{group}{name}.")
        else:
            yield f"{group}{name}", value


def package_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the version of Python and of each installed package of `packages`.

    One that is not installed is left out.
    """
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def digest_outputs(folder: Path) -> dict[str, FileInfo]:
    """Return size and sha256 of every file under `folder` except manifest.json, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): storage.describe(str(path))
        for path in files
        if path != folder / MANIFEST
    }
