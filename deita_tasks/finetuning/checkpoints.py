"""The trainer's checkpoints in the store, so that a training that was killed goes on.

    <store>/checkpoints/<address>/checkpoint-<step>/...    what the trainer wrote
    <store>/checkpoints/<address>/checkpoint-<step>.json   its files; written last

A checkpoint without its record is one that was never finished. The trainer writes optimizer and
random state in torch's format, which it reads as tensors alone (weights_only).
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import NonNegativeInt

from deita_tasks import storage
from deita_tasks.errors import StorageError
from deita_tasks.finetuning.job import copy_files, relative_files
from deita_tasks.storage import FileInfo
from deita_tasks.strict_json import JsonRecord

log = logging.getLogger(__name__)

RECORD = re.compile(r"checkpoint-(\d+)\.json")
PICKLED = "training_args.bin"  # pickled, and nobody reads it


class CheckpointRecord(JsonRecord):
    """A complete checkpoint and its files."""

    step: NonNegativeInt
    files: dict[str, FileInfo]


class Checkpoints:
    """The checkpoints of one training.

    folder: where the trainer writes them. uri: where the store keeps them.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        self.uri = uri
        self.is_remote = storage.absolute(uri) != str(folder.absolute())

    def keep(self, step: int) -> None:
        """Put a checkpoint that the trainer has just written into the store; drop earlier ones.

        Its record is written last, so a checkpoint that a kill cut short is never taken for whole.
        """
        folder = self.folder / f"checkpoint-{step}"
        (folder / PICKLED).unlink(missing_ok=True)
        names = relative_files(folder)
        files = {name: storage.describe(str(folder / name)) for name in names}
        if self.is_remote:
            copy_files(str(folder), storage.join(self.uri, folder.name), names)
        record = CheckpointRecord(step=step, files=files)
        storage.write_record(storage.join(self.uri, f"{folder.name}.json"), record)
        for other in self._steps():
            if other != step:
                self._drop(other)

    def restore(self) -> Path | None:
        """Return the folder of the last complete checkpoint, fetched if the store is elsewhere.

        None if there is none. One that is damaged is passed over with a warning.
        """
        for step in sorted(self._steps(), reverse=True):
            try:
                return self._fetch(step)
            except StorageError as error:
                log.warning("checkpoint %d is passed over: %s", step, error)
        return None

    def _steps(self) -> Iterator[int]:
        """Yield the update of each finished checkpoint, in any order."""
        for uri in storage.list_files(self.uri, ".json"):
            match = RECORD.fullmatch(uri.rsplit("/", 1)[1])
            if match:
                yield int(match[1])

    def _fetch(self, step: int) -> Path:
        """Return the folder of a checkpoint on this machine, its files compared with their record.

        Raises DamagedArtifact or MissingFile for one that is not as it was written.
        """
        name = f"checkpoint-{step}"
        record = storage.read_record(storage.join(self.uri, f"{name}.json"), CheckpointRecord)
        folder = self.folder / name
        if self.is_remote:
            shutil.rmtree(folder, ignore_errors=True)
            copy_files(storage.join(self.uri, name), str(folder), list(record.files))
        for file, info in record.files.items():
            storage.checked_file(str(folder), file, info)
        return folder

    def _drop(self, step: int) -> None:
        """Remove a checkpoint, its record first."""
        name = f"checkpoint-{step}"
        storage.remove(storage.join(self.uri, f"{name}.json"))
        storage.remove(storage.join(self.uri, name))
        shutil.rmtree(self.folder / name, ignore_errors=True)
