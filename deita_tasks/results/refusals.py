"""Versions that a person refused: each is a file `refused/<version>` of the output.

The version stays beside the others, for `latest` never to point to it unasked.
"""

from __future__ import annotations

from collections.abc import Iterable

from deita_tasks import storage
from deita_tasks.strict_json import JsonRecord

FOLDER = "refused"


class Refusal(JsonRecord):
    """What the person said. comment: "" for nothing."""

    comment: str


def refuse(output: str, version: str, comment: str) -> None:
    """Record that a person refused the version."""
    storage.write_record(_place(output, version), Refusal(comment=comment))


def read_refusal(output: str, version: str) -> Refusal | None:
    """Return the refusal of a version; None if nobody refused it."""
    place = _place(output, version)
    return storage.read_record(place, Refusal) if storage.exists(place) else None


def forget_refusals(output: str, versions: Iterable[str]) -> None:
    """Remove the refusals of versions that are gone."""
    for version in versions:
        storage.remove(_place(output, version))


def _place(output: str, version: str) -> str:
    return storage.join(output, FOLDER, f"{version}.json")
