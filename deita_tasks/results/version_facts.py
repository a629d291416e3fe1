"""What a version says of itself: its counts, its settings and its changes."""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue, NonNegativeInt

from deita_tasks.reporting.settings import compare_settings
from deita_tasks.results.explain import read_result
from deita_tasks.results.reading import read_changes
from deita_tasks.results.version_diff import name_of, settings_of
from deita_tasks.strict_json import JsonRecord


class VersionFacts(JsonRecord):
    """A version, or another result.

    counts: rows by decision. settings: what the selection depends on, with nested names joined by
    dots. changes: changes.json; None if it was compared with no other.
    """

    version: str
    uri: str
    pool: str
    counts: dict[str, NonNegativeInt]
    settings: dict[str, JsonValue]
    changes: dict[str, JsonValue] | None


def read_facts(uri: str) -> VersionFacts:
    """Return the facts of the result in the folder `uri`. Raises UsageError if there is none."""
    manifest = read_result(uri)
    nothing: dict[str, Any] = {}
    settings = compare_settings(nothing, settings_of(manifest))
    return VersionFacts(
        version=name_of(uri),
        uri=uri,
        pool=manifest.pool,
        counts=manifest.counts,
        settings={setting.name: setting.after for setting in settings},
        changes=read_changes(uri, manifest.outputs),
    )
