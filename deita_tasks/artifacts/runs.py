"""Marks of the runs that use a store: `gc` keeps what they need.

    <store>/runs/<id>.json    when the run began, and what it needs

A run writes its mark anew every minute, and removes it at its end. A mark that is older than
LIFETIME is of a run that was killed, and protects nothing. The times are those of the store, so
the clocks of the machines that share it have to agree within LIFETIME.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial

from pydantic import AwareDatetime, Field

from deita_tasks import storage
from deita_tasks.artifacts.heartbeat import repeated
from deita_tasks.errors import DamagedArtifact, MissingFile, StorageError
from deita_tasks.strict_json import JsonRecord

log = logging.getLogger(__name__)

RUNS_FOLDER = "runs"
MARK_NAME = re.compile(r"[0-9a-f]{32}\.json")
REFRESH_SECONDS = 60.0
END_SECONDS = 5.0  # for a refresh that is under way when the run ends
LIFETIME = timedelta(hours=1)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class RunMark(JsonRecord):
    """What a run needs: a pool, and a selection if the store has it.

    fingerprints: of its scores and embeddings, by stage. exclusions: digests of what its filters
    leave out. references: digests of what rows are compared with.
    """

    begun: AwareDatetime
    pool: str
    fingerprints: Mapping[str, str]
    selection: str
    exclusions: list[str] = Field(default_factory=list)
    references: list[str] = Field(default_factory=list)


@contextmanager
def mark_run(
    store: str,
    pool: str,
    fingerprints: Mapping[str, str],
    selection: str,
    exclusions: Sequence[str] = (),
    references: Sequence[str] = (),
) -> Iterator[None]:
    """Keep what a run needs from `gc` until the block ends.

    Raises StorageError only if the first mark cannot be written; a later failure is a warning.
    """
    mark = RunMark(
        begun=datetime.now(UTC),
        pool=pool,
        fingerprints=fingerprints,
        selection=selection,
        exclusions=list(exclusions),
        references=list(references),
    )
    uri = storage.join(store, RUNS_FOLDER, f"{uuid.uuid4().hex}.json")
    storage.write_record(uri, mark)
    try:
        with repeated(partial(_refresh, uri, mark), REFRESH_SECONDS, END_SECONDS):
            yield
    finally:
        with suppress(StorageError):  # it dies by itself
            storage.remove(uri)


def _refresh(uri: str, mark: RunMark) -> bool:
    """Write the mark anew; return True, so that it is tried again also after a failure.

    A store that cannot be reached for a minute must not end the run.
    """
    try:
        storage.write_record(uri, mark)
    except StorageError as error:
        log.warning("the mark of this run is not refreshed: %s", error)
    return True


def marked_runs(store: str) -> set[str]:
    """Return the URIs of all marks, those of killed runs included."""
    uris = storage.list_files(storage.join(store, RUNS_FOLDER), ".json")
    return {uri for uri in uris if MARK_NAME.fullmatch(uri.rsplit("/", 1)[1])}


def read_marks(store: str, now: datetime) -> list[RunMark]:
    """Return the marks of the runs under way.

    A mark that cannot be read stands for a run that needs everything.
    """
    folder = storage.join(store, RUNS_FOLDER)
    marks = []
    for file in storage.find(folder):
        if not MARK_NAME.fullmatch(file.name) or now - file.modified >= LIFETIME:
            continue
        try:
            marks.append(storage.read_record(storage.join(folder, file.name), RunMark))
        except MissingFile:
            continue  # the run has ended
        except DamagedArtifact as error:
            log.warning("everything stays for the run of a damaged mark: %s", error)
            marks.append(RunMark(begun=LONG_AGO, pool="", fingerprints={}, selection=""))
    return marks


def grace_beside(marks: Iterable[RunMark], grace: timedelta, now: datetime) -> timedelta:
    """Return `grace`, longer if that keeps all that the runs of `marks` have written."""
    return max([grace, *(now - mark.begun + LIFETIME for mark in marks)])
