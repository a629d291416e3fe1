"""What the flows return: records with fields, which also answer `result["counts"]`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import KeysView, Mapping
from importlib import import_module
from typing import Any

import pandas as pd
from pydantic import JsonValue, NonNegativeInt

from deita_tasks.manifest import Manifest, SweepManifest
from deita_tasks.results.reading import read_ledger, read_manifest
from deita_tasks.results.record_check import RecordCheck
from deita_tasks.strict_json import JsonRecord


class ResultRecord(JsonRecord):
    """Base class of what the flows return.

    `result["counts"]` and `dict(result)` read the JSON values that `to_json_fields` returns.
    """

    @abstractmethod
    def to_json_fields(self) -> dict[str, JsonValue]:
        """Return the values that subscripts read, by name."""

    def __getitem__(self, name: str) -> Any:
        """Return a JSON value of the result by its name."""
        return self.to_json_fields()[name]

    def __contains__(self, name: object) -> bool:
        """Return whether a subscript may have this name."""
        return name in self.to_json_fields()

    def keys(self) -> KeysView[str]:
        """Return the names that subscripts may have."""
        return self.to_json_fields().keys()


class TaskCounts(JsonRecord):
    """Prefect tasks of a stage: taken from the cache, and run."""

    cached: NonNegativeInt
    run: NonNegativeInt


def _check(uri: str, records: Any, format: str, store: str | None) -> Any:
    """Return one check for a dict of one record, else a list in the order of the records."""
    # It needs what a plan needs, which is above what a run returns.
    checking: Any = import_module("deita_tasks.checking")
    checks: list[RecordCheck] = checking.check_records(uri, records, format, store)
    return checks[0] if isinstance(records, Mapping) else checks


def _load_ledger(uri: str, manifest: Manifest) -> pd.DataFrame:
    """Return the ledger of a result, a row for every row of the pool.

    Raises MissingFile or DamagedArtifact if it is not the file that the manifest names.
    """
    ledger: pd.DataFrame = read_ledger(uri, manifest.outputs).to_pandas()
    return ledger


class CheckedResult(ResultRecord):
    """A selection in its output folder, against which records can be checked."""

    uri: str

    def check(
        self, records: Any, format: str = "auto", store: str | None = None
    ) -> RecordCheck | list[RecordCheck]:
        """Return what the selection would make of a record that it has not seen, without a run.

        records: a dict, which gives one RecordCheck; else rows or a URI, as `read_conversations`
        takes them, and a list. store: where the store is now, if it has moved. Models stay loaded
        between calls.
        """
        result: RecordCheck | list[RecordCheck] = _check(self.uri, records, format, store)
        return result


class Subset(CheckedResult):
    """A selection in its output folder. tasks: by stage. Subscripts read the manifest's fields."""

    manifest: Manifest
    tasks: dict[str, TaskCounts]

    def to_json_fields(self) -> dict[str, JsonValue]:
        """Return the fields of the manifest, and the counts of tasks by stage."""
        tasks = {stage: counts.to_dict() for stage, counts in self.tasks.items()}
        return {**self.manifest.to_dict(), "tasks": tasks}

    def load(self) -> pd.DataFrame:
        """Return the ledger, decisions.parquet: one row for every row of the pool."""
        return _load_ledger(self.uri, self.manifest)


class SubsetVersion(CheckedResult):
    """A version that `reselect` has made, or found to be up to date.

    subset: None if nothing is new. changes: changes.json, None without an earlier version.
    refused: a person refused it or moved `latest` back from it, so `latest` does not point to it.
    """

    version: str
    refused: bool = False
    subset: Subset | None = None
    changes: dict[str, JsonValue] | None = None

    @property
    def is_new(self) -> bool:
        """Whether the run made the version."""
        return self.subset is not None

    def to_json_fields(self) -> dict[str, JsonValue]:
        """Return what the version is and what changed; the manifest is None if nothing is new."""
        return {
            "version": self.version,
            "uri": self.uri,
            "new": self.is_new,
            "manifest": self.subset.to_json_fields() if self.subset else None,
            "changes": self.changes,
        }

    def load(self) -> pd.DataFrame:
        """Return the ledger, decisions.parquet: one row for every row of the pool."""
        return _load_ledger(self.uri, read_manifest(self.uri))


class Sweep(ResultRecord):
    """A sweep in its output folder. Subscripts read the manifest's fields and `selections`."""

    uri: str
    manifest: SweepManifest
    selections: list[dict[str, JsonValue]]  # the lines of sweep.csv

    def to_json_fields(self) -> dict[str, JsonValue]:
        """Return the fields of the manifest, and a row for every selection."""
        selections: list[JsonValue] = [dict(selection) for selection in self.selections]
        return {**self.manifest.to_dict(), "selections": selections}


class LimitSolution(ResultRecord):
    """The limit that fills a budget: it selects `kept` of `candidates` rows.

    `kept` is below the budget only if even a limit of 1 selects fewer.
    """

    max_similarity: float
    kept: NonNegativeInt
    candidates: NonNegativeInt

    def to_json_fields(self) -> dict[str, JsonValue]:
        """Return all fields of the record; there is no manifest here."""
        return self.to_dict()
