"""What a person reads who decides about a new version, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deita_tasks.manifest import Manifest
from deita_tasks.reporting.drift import describe_drift
from deita_tasks.reporting.markdown import code
from deita_tasks.reporting.settings import describe_settings

MAX_REASONS = 10


def describe_version(uri: str, manifest: Manifest, changes: Mapping[str, Any] | None) -> str:
    """Return where a version lies, its counts and its changes. changes: those of changes.json."""
    counts = manifest.counts
    lines = [f"{code(uri)}: {counts.selected:,} of {counts.read:,} rows are selected."]
    if changes is None:
        return "\n\n".join([*lines, "It is the first version."])
    pool, selection = changes["pool"], changes["selection"]
    lines.append(
        f"Since {changes['before']}, {pool['added']:,} conversations joined the pool and "
        f"{pool['removed']:,} left it; {selection['added']:,} joined the selection and "
        f"{selection['dropped']:,} left it."
    )
    settings = describe_settings(changes["settings"])
    if settings:
        lines.append("Settings that differ:")
        lines.append("\n".join(f"- {code(setting)}" for setting in settings))
    reasons = changes["why"][:MAX_REASONS]
    lines.append(
        "\n".join(
            f"- {each['conversations']:,} {each['change']}: {each['why']}" for each in reasons
        )
    )
    lines.append("\n".join(f"- {sentence}" for sentence in describe_drift(changes["drift"])))
    return "\n\n".join(filter(None, lines))
