"""Whether a store is whole: every digest compared, every page of every table read and its checksum
verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks import storage
from deita_tasks.artifacts.inventory import artifacts
from deita_tasks.artifacts.parts import PartSet, part_digest
from deita_tasks.errors import DamagedArtifact, MissingFile


@dataclass(frozen=True)
class Checked:
    """A file or a folder of the store (`name`, from the store on), and what is wrong with it: ""
    for nothing.
    """

    name: str
    problem: str = ""


def verify(store: str, remove: bool = False) -> Iterator[Checked]:
    """Check everything in the store, one after the other; `remove` what is damaged, so that it is
    computed again.

    A pool or a selection that a killed run has not finished is not damaged: nothing refers to it,
    and a run that wants it makes it anew.
    """
    for artifact in artifacts(store):
        checks: dict[str, Callable[[], None]] = {}
        uri = storage.join(store, artifact.folder)
        if artifact.kind in ("pools", "selections"):
            check = _check_pool if artifact.kind == "pools" else _check_selection
            checks[artifact.folder] = lambda uri=uri, check=check: check(uri)  # type: ignore[misc]
        elif artifact.digest:
            family = PartSet(uri, artifact.digest)
            checks[f"{artifact.folder}/fingerprint.json"] = lambda family=family: (
                _check_fingerprint(family)
            )  # type: ignore[misc]
            for part in family.listed():
                checks[f"{artifact.folder}/part-{part}.parquet"] = lambda family=family, part=part: (
                    _check_part(family, part)
                )  # type: ignore[misc]
        for name, check_it in checks.items():
            checked = Checked(name, _problem(check_it))
            if checked.problem and remove:
                storage.remove(storage.join(store, name))
            yield checked


def _problem(check: Callable[[], None]) -> str:
    try:
        check()
    except MissingFile:
        return ""  # not finished, or gone since it was listed
    except DamagedArtifact as error:
        return str(error)
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # JSON, but not ours
        return f"not what was written ({type(error).__name__}: {error})"
    return ""


def _check_pool(uri: str) -> None:
    summary = storage.read_json(storage.join(uri, "pool.json"))
    _check_files(
        uri,
        {
            **{file["name"]: file for file in summary["files"]},
            "quarantine.parquet": summary["quarantine"],
        },
    )
    quarantined = storage.read_table(storage.join(uri, "quarantine.parquet")).num_rows
    if quarantined != summary["quarantined"]:
        raise DamagedArtifact(
            f"{uri}: {quarantined} rows in quarantine, expected {summary['quarantined']}"
        )
    good = sum(sum(file["groups"]) for file in summary["files"])
    if good != summary["good"]:
        raise DamagedArtifact(f"{uri}: {good} good rows, expected {summary['good']}")


def _check_selection(uri: str) -> None:
    summary = storage.read_json(storage.join(uri, "selection.json"))
    _check_files(uri, summary["files"])
    rows = storage.read_table(storage.join(uri, "decisions.parquet"), ["decision"]).num_rows
    if rows != summary["counts"]["read"]:
        raise DamagedArtifact(
            f"{uri}: decisions for {rows} rows, expected {summary['counts']['read']}"
        )


def _check_files(uri: str, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, facts in files.items():
        place = storage.join(uri, name)
        if not storage.exists(place):
            raise DamagedArtifact(f"{place}: is not there")
        found = storage.describe(place)
        if (found["bytes"], found["sha256"]) != (facts["bytes"], facts["sha256"]):
            raise DamagedArtifact(
                f"{place}: {found['bytes']} bytes that are not the {facts['bytes']} bytes written"
            )


def _check_fingerprint(family: PartSet) -> None:
    digest = storage.digest_of(storage.read_json(storage.join(family.uri, "fingerprint.json")))
    if digest != family.fingerprint:
        raise DamagedArtifact(f"{family.uri}/fingerprint.json: stands for {digest}")


def _check_part(family: PartSet, digest: str) -> None:
    uri = family.part(digest)
    table = storage.read_table(uri)
    if not {"id", "values", "cut", "problem"} <= set(table.column_names):
        raise DamagedArtifact(f"{uri}: a table of {', '.join(table.column_names)}; expected a part")
    ids = table["id"].combine_chunks()
    if part_digest(ids) != digest:
        raise DamagedArtifact(f"{uri}: its ids are not those that its name stands for")
    if len(ids.unique()) != len(ids):
        raise DamagedArtifact(f"{uri}: an id stands in it twice")
    if not pc.all(pc.equal(pc.is_null(table["values"]), pc.is_valid(table["problem"]))).as_py():
        raise DamagedArtifact(f"{uri}: rows with neither a value nor a reason, or with both")
    values = pa.chunked_array([chunk.flatten() for chunk in table["values"].chunks])
    if len(values) and not pc.all(pc.is_finite(values)).as_py():
        raise DamagedArtifact(f"{uri}: values that are not finite")
