"""Check a store: compare every digest, and read every page of every table with its checksum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks import storage
from deita_tasks.artifacts import exclusions, references
from deita_tasks.artifacts.inventory import Artifact, list_artifacts
from deita_tasks.artifacts.models import read_outline
from deita_tasks.artifacts.parts import FINGERPRINT_FILE, PartSet, ids_digest
from deita_tasks.artifacts.pool import POOL_FILE, QUARANTINE_FILE, PoolSummary
from deita_tasks.artifacts.runs import RunMark
from deita_tasks.artifacts.selection import DECISIONS_FILE, read_selection
from deita_tasks.artifacts.shards import check_plan
from deita_tasks.artifacts.task_results import StoredResult
from deita_tasks.errors import DamagedArtifact, MissingFile
from deita_tasks.storage import FileInfo

EARLY_RESULT_FIELDS = {"metadata", "result"}


@dataclass(frozen=True)
class CheckResult:
    """A file or folder of the store, and what is wrong with it ("" for nothing)."""

    name: str
    problem: str = ""


def verify(store: str, remove: bool = False) -> Iterator[CheckResult]:
    """Check everything in the store; with `remove`, remove what is damaged to compute it again.

    A pool or selection that a killed run has not finished is not damaged: nothing refers to it,
    and a run that needs it makes it anew.
    """
    for artifact in list_artifacts(store):
        for name, check in _checks(store, artifact).items():
            result = CheckResult(name, _problem(check))
            if result.problem and remove:
                _remove(store, name, artifact)
            yield result


def _remove(store: str, name: str, artifact: Artifact) -> None:
    """Remove a damaged file, or the files of a damaged artifact and none that are not ours."""
    files = [file.name for file in artifact.files]
    for file in [name] if name in files else files:
        storage.remove(storage.join(store, file))


def _checks(store: str, artifact: Artifact) -> dict[str, Callable[[], object]]:
    """Return the checks of an artifact, by the file or folder to remove if they fail."""
    uri = storage.join(store, artifact.folder)
    if artifact.kind in FOLDER_CHECKS:
        return {artifact.folder: partial(FOLDER_CHECKS[artifact.kind], uri)}
    if artifact.kind in FILE_CHECKS:
        return {
            file.name: partial(FILE_CHECKS[artifact.kind], storage.join(store, file.name))
            for file in artifact.files
        }
    if not artifact.is_part_set:
        return {}
    part_set = PartSet(uri=uri, fingerprint=artifact.digest)
    checks: dict[str, Callable[[], object]] = {
        f"{artifact.folder}/{FINGERPRINT_FILE}": part_set.read_fingerprint
    }
    for digest in part_set.digests():
        name = part_set.part(digest).rsplit("/", 1)[1]
        checks[f"{artifact.folder}/{name}"] = partial(_check_part, part_set, digest)
    return checks


def _problem(check: Callable[[], object]) -> str:
    """Return what a check complains of, "" for nothing. Other errors of the store pass through."""
    try:
        check()
    except MissingFile:
        return ""  # unfinished, or gone since it was listed
    except DamagedArtifact as error:
        return str(error)
    return ""


def _check_pool(uri: str) -> None:
    """Raise DamagedArtifact unless the files are those written, with as many rows as counted."""
    summary = storage.read_record(storage.join(uri, POOL_FILE), PoolSummary)
    _check_files(uri, summary.file_infos())
    quarantined = storage.read_table(storage.join(uri, QUARANTINE_FILE)).num_rows
    if quarantined != summary.quarantined:
        raise DamagedArtifact(
            f"{uri}: {quarantined} rows in quarantine, expected {summary.quarantined}"
        )
    good = sum(sum(file.groups) for file in summary.files)
    if good != summary.good:
        raise DamagedArtifact(f"{uri}: {good} good rows, expected {summary.good}")


def _check_selection(uri: str) -> None:
    """Raise DamagedArtifact unless the files are those written, with a decision for each row."""
    summary = read_selection(uri)
    _check_files(uri, summary.files)
    rows = storage.read_table(storage.join(uri, DECISIONS_FILE), ["decision"]).num_rows
    if rows != summary.counts.read:
        raise DamagedArtifact(f"{uri}: decisions for {rows} rows, expected {summary.counts.read}")


def _check_exclusions(uri: str) -> None:
    """Raise DamagedArtifact unless the files are those written."""
    _check_files(uri, exclusions.read_summary(uri).files)


def _check_reference(uri: str) -> None:
    """Raise DamagedArtifact unless texts and vectors are those written."""
    _check_files(uri, references.read_summary(uri).files)


def _check_files(uri: str, infos: Mapping[str, FileInfo]) -> None:
    """Raise DamagedArtifact for a file below `uri` that is missing or differs in size or digest."""
    for name, expected in infos.items():
        place = storage.join(uri, name)
        if not storage.exists(place):
            raise DamagedArtifact(f"{place}: missing")
        actual = storage.describe(place)
        if (actual.bytes, actual.sha256) != (expected.bytes, expected.sha256):
            raise DamagedArtifact(
                f"{place}: {actual.bytes} bytes that are not the {expected.bytes} bytes written"
            )


def _check_part(part_set: PartSet, digest: str) -> None:
    """Raise DamagedArtifact unless a part is what its name says and its rows are sound.

    Sound: each id once, and either a finite value or a problem. Reads the bytes anew, whatever was
    found before.
    """
    uri = part_set.part(digest)
    part_set.check(digest, again=True)
    table = part_set.read(digest)
    ids = table["id"].combine_chunks()
    shard, _, sha256 = digest.partition("-")
    if not sha256 and ids_digest(ids) != shard:
        raise DamagedArtifact(f"{uri}: its ids are not those that its name stands for")
    if len(ids.unique()) != len(ids):
        raise DamagedArtifact(f"{uri}: an id appears twice")
    has_no_value = pc.is_null(table["values"])
    if not pc.all(pc.equal(has_no_value, pc.is_valid(table["problem"]))).as_py():
        raise DamagedArtifact(f"{uri}: rows with neither a value nor a reason, or with both")
    values = pa.chunked_array([chunk.flatten() for chunk in table["values"].chunks])
    if len(values) and not pc.all(pc.is_finite(values)).as_py():
        raise DamagedArtifact(f"{uri}: values that are not finite")


def _check_result(uri: str) -> None:
    """Raise DamagedArtifact unless the file is a result of a task, of this or an early version."""
    fields = storage.read_json(uri)
    # Early versions kept Prefect's own records, which nothing reads any more.
    if not isinstance(fields, dict) or fields.keys() != EARLY_RESULT_FIELDS:
        storage.as_record(uri, fields, StoredResult)


def _check_run(uri: str) -> None:
    """Raise DamagedArtifact unless the file is the mark of a run."""
    storage.read_record(uri, RunMark)


def _check_model(uri: str) -> None:
    """Raise DamagedArtifact unless the files of the model are those its record lists."""
    _check_files(uri, read_outline(uri).files)


FOLDER_CHECKS = {
    "models": _check_model,
    "pools": _check_pool,
    "selections": _check_selection,
    "exclusions": _check_exclusions,
    "references": _check_reference,
}
FILE_CHECKS = {"plans": check_plan, "results": _check_result, "runs": _check_run}
