"""Read a result: its manifest, and the files that the manifest vouches for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pydantic import ConfigDict, Field, NonNegativeInt

from deita_tasks import storage
from deita_tasks.artifacts.ledger import SCHEMA
from deita_tasks.artifacts.selection import DECISIONS_FILE
from deita_tasks.errors import DamagedArtifact, MissingFile
from deita_tasks.manifest import MANIFEST, Manifest
from deita_tasks.storage import FileInfo
from deita_tasks.strict_json import JsonRecord

CHANGES_FILE = "changes.json"


class EarlierManifest(JsonRecord):
    """What manifest.json of a selection says in every version of this package."""

    model_config = ConfigDict(extra="ignore")

    pool: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, NonNegativeInt]
    fingerprints: dict[str, Any]
    outputs: dict[str, FileInfo] = Field(default_factory=dict)


def read_manifest(uri: str) -> Manifest:
    """Return the manifest of the selection in the folder `uri`.

    Raises MissingFile or DamagedArtifact.
    """
    return storage.read_record(storage.join(uri, MANIFEST), Manifest)


def read_earlier_manifest(uri: str) -> EarlierManifest:
    """Return the manifest of a selection that another version may have made.

    Raises MissingFile or DamagedArtifact.
    """
    return storage.read_record(storage.join(uri, MANIFEST), EarlierManifest)


def checked_output(uri: str, name: str, outputs: Mapping[str, FileInfo]) -> str:
    """Return the URI of a file of the result in `uri`.

    Raises MissingFile, or DamagedArtifact if it is not the file that its manifest lists.
    """
    if name not in outputs:  # manifests of early versions list none
        return storage.join(uri, name)
    return storage.checked_file(uri, name, outputs[name])


def read_ledger(uri: str, outputs: Mapping[str, FileInfo]) -> pa.Table:
    """Return decisions.parquet of the result in `uri`.

    Raises MissingFile, or DamagedArtifact if it is not the file that its manifest lists.
    """
    place = checked_output(uri, DECISIONS_FILE, outputs)
    table = storage.read_table(place)
    for name in ("evol_lower", "evol_upper"):
        if name not in table.column_names:  # of early versions, which computed every score
            table = table.append_column(SCHEMA.field(name), table["evol_score"])
    for name in ("stratum", "scores", "cut_turns", "whole_id"):
        if name not in table.column_names:
            field = SCHEMA.field(name)
            table = table.append_column(field, pa.nulls(len(table), field.type))
    if set(table.column_names) != set(SCHEMA.names) or table.select(SCHEMA.names).schema != SCHEMA:
        raise DamagedArtifact(f"{place}: columns {table.column_names}; expected {SCHEMA.names}")
    return table.select(SCHEMA.names)


def read_changes(uri: str, outputs: Mapping[str, FileInfo]) -> dict[str, Any] | None:
    """Return changes.json of the result in `uri`; None if it was compared with no other.

    Raises MissingFile, or DamagedArtifact if it is not the file that its manifest lists.
    """
    if CHANGES_FILE not in outputs:
        return None
    changes: dict[str, Any] = storage.read_json(checked_output(uri, CHANGES_FILE, outputs))
    return changes


def damage_of(uri: str) -> str | None:
    """Return what is wrong with the result in `uri`; None if every file is as it was written.

    Raises StorageError if that cannot be told, because the store cannot be reached.
    """
    try:
        outputs = read_manifest(uri).outputs
        for name in outputs:
            checked_output(uri, name, outputs)
    except (MissingFile, DamagedArtifact) as error:
        return str(error)
    return None
