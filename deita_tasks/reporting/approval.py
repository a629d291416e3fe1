"""What a person reads who decides about a new version, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deita_tasks.manifest import Manifest
from deita_tasks.reporting.markdown import code

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
    if changes["settings"]:
        lines.append(f"Settings that differ: {', '.join(changes['settings'])}.")
    reasons = changes["why"][:MAX_REASONS]
    lines.append(
        "\n".join(
            f"- {each['conversations']:,} {each['change']}: {each['why']}" for each in reasons
        )
    )
    lines.append("\n".join(filter(None, map(_drift, changes["drift"]))))
    return "\n\n".join(filter(None, lines))


def _reason(reason: Mapping[str, Any]) -> str:
    return f"- {reason['conversations']:,} {reason['change']}: {reason['why']}"


def _drift(drift: Mapping[str, Any]) -> str | None:
    """Return how the new rows of the pool score beside the old ones; None if either has no rows."""
    old, new = drift["old"]["mean"], drift["new"]["mean"]
    if old is None or new is None:
        return None
    return f"- mean {drift['measure']}: {new:.2f} of the new rows, {old:.2f} of the old ones"
