"""Emit Prefect events, so that an automation can act on a new selection: start a training run."""

from __future__ import annotations

from prefect.events import emit_event
from pydantic import JsonValue

from deita_tasks import storage
from deita_tasks.manifest import Manifest
from deita_tasks.results.versions import version_uri

SELECTION_CREATED = "deita.selection.created"


def emit_selection_created(
    output: str, version: str, manifest: Manifest, changes: dict[str, JsonValue] | None
) -> None:
    """Emit SELECTION_CREATED for a version. Its resource is the output that versions belong to."""
    resource = {
        "prefect.resource.id": f"deita.output.{storage.digest_of(output)}",
        "prefect.resource.name": output,
        "deita.version": version,
    }
    payload = {
        "output": output,
        "version": version,
        "uri": version_uri(output, version),
        "counts": manifest.counts.to_dict(),
        "selection": changes["selection"] if changes else None,
    }
    emit_event(event=SELECTION_CREATED, resource=resource, payload=payload)
