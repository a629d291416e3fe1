"""JSON Lines output."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable
from pathlib import Path

from deita_tasks import storage
from deita_tasks.exporting.base import Exporter, OutputRow, Survey
from deita_tasks.strict_json import strict_json


class JsonLines(Exporter, ABC):
    """Base class of formats that write one JSON object per line, into selected.jsonl."""

    def write(self, rows: Iterable[OutputRow], survey: Survey, folder: Path) -> list[Path]:
        """Return the one file, UTF-8, which appears only when it is whole.

        NaN and the infinities, which strict JSON lacks, become null. Raises StorageError.
        """
        path = folder / "selected.jsonl"
        with storage.write_atomic(str(path)) as file:
            file.writelines(f"{strict_json(row)}\n".encode() for row in rows)
        return [path]
