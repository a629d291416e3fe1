"""Versions that a person does not want: each is a file `refused/<version>.json` of the output.

The version stays beside the others, for `latest` never to point to it unasked.
"""

from __future__ import annotations

from collections.abc import Iterable

from deita_tasks import storage
from deita_tasks.strict_json import JsonRecord

FOLDER = "refused"


class Refusal(JsonRecord):
    """What the person said or did.

    comment: "" for nothing. withdrawn: `latest` was moved back from the version, or past it, to an
    older one.
    """

    comment: str
    withdrawn: bool = False


def refuse(output: str, version: str, comment: str) -> None:
    """Record that a person refused the version, in place of what was recorded before."""
    storage.write_record(_place(output, version), Refusal(comment=comment))


def withdraw(output: str, version: str) -> None:
    """Record that a person moved `latest` from the version to an older one."""
    storage.write_record(_place(output, version), Refusal(comment="", withdrawn=True))


def read_refusal(output: str, version: str) -> Refusal | None:
    """Return the refusal of a version; None if nobody refused it."""
    place = _place(output, version)
    return storage.read_record(place, Refusal) if storage.exists(place) else None


def forget_refusals(output: str, versions: Iterable[str]) -> None:
    """Remove the refusals of versions that are gone, or that are wanted again."""
    for version in versions:
        storage.remove(_place(output, version))


def _place(output: str, version: str) -> str:
    """Return the file that records the refusal of a version; it is there only if it was refused."""
    return storage.join(output, FOLDER, f"{version}.json")
