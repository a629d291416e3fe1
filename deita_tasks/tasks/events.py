"""Tell the Prefect server of a new selection, so that an automation can act on it: start a training
run, say.
"""

from collections.abc import Mapping
from typing import Any

from prefect.events import emit_event

from deita_tasks import storage

EVENT = "deita.selection.created"


def announce(
    output: str, name: str, manifest: Mapping[str, Any], changes: Mapping[str, Any] | None
) -> None:
    """Emit EVENT for the version `name` under `output`. Its resource is the output: one thing, of
    which versions come.
    """
    emit_event(
        event=EVENT,
        resource={
            "prefect.resource.id": f"deita.output.{storage.digest_of(output)}",
            "prefect.resource.name": output,
            "deita.version": name,
        },
        payload={
            "output": output,
            "version": name,
            "uri": storage.join(output, "versions", name),
            "counts": dict(manifest["counts"]),
            "selection": dict(changes["selection"]) if changes else None,
        },
    )
