"""JSON Lines out."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deita_tasks import storage
from deita_tasks.exporting.base import Exporter, Survey
from deita_tasks.strict_json import strict_json

if TYPE_CHECKING:
    from deita_tasks.manifest import Manifest


class JsonLines(Exporter, ABC):
    """A format of one JSON object a line, in selected.jsonl."""

    def write(
        self,
        rows: Iterable[dict[str, Any]],
        survey: Survey,
        folder: Path,
        manifest: Manifest | None,
    ) -> list[Path]:
        path = folder / "selected.jsonl"
        with storage.write_atomic(str(path)) as lines:
            lines.writelines(f"{strict_json(row)}\n".encode() for row in rows)
        return [path]
