"""Point `latest` to a new version."""

from __future__ import annotations

from typing import Any

from prefect.assets import materialize
from pydantic import JsonValue

from deita_tasks.manifest import Manifest
from deita_tasks.results import versions
from deita_tasks.results.version_card import write_version_card
from deita_tasks.tasks.assets import materializing
from deita_tasks.tasks.events import emit_selection_created


def publish(
    output: str, version: str, manifest: Manifest, changes: dict[str, JsonValue] | None
) -> None:
    """Announce a complete version, and point `latest` to it.

    The event comes first: if the run is killed in between, the next one announces the version
    again, so no version stays unannounced.
    """
    sources = [versions.version_uri(output, version)]
    task: Any = materializing(publish_version, output, "latest version", sources)
    task(output, version, manifest.to_dict(), changes)


@materialize(
    "deita://version",
    name="publish-version",
    task_run_name="publish {version}",
    result_serializer="json",
)
def publish_version(
    output: str, version: str, manifest: dict[str, JsonValue], changes: dict[str, JsonValue] | None
) -> None:
    """Announce the version, write its card beside `latest`, and move that."""
    emit_selection_created(output, version, Manifest.model_validate(manifest), changes)
    write_version_card(output, version)
    versions.move_latest(output, version)
