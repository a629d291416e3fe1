"""The versions of an output: what became of each, which one a name means, and how to go back.

list_history("selections")              # the oldest first
find_version("selections", "previous")  # "20260131T235959Z-0123456789abcdef"
use_version("selections", "previous")   # moves `latest`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, MissingFile, UsageError
from deita_tasks.manifest import MANIFEST
from deita_tasks.results import refusals, versions
from deita_tasks.results.reading import damage_of, read_changes, read_earlier_manifest
from deita_tasks.results.version_card import write_version_card
from deita_tasks.strict_json import JsonRecord

PREVIOUS = "previous"
MAX_EXAMPLES = 3

State = Literal[
    "latest",
    "earlier",
    "refused",  # by a person whom the run asked
    "withdrawn",  # `latest` was moved back from it
    "not published",  # newer than the latest: a run was killed, or waits for an answer
    "damaged",
    "incomplete",  # a run is writing it, or was killed
]


class VersionSummary(JsonRecord):
    """A version in a list.

    selected, read: rows; None if its manifest cannot be read. joined, left: conversations, against
    the version `before`; None if it was compared with no other.
    """

    version: str
    state: State
    selected: int | None = None
    read: int | None = None
    before: str | None = None
    joined: int | None = None
    left: int | None = None


class Move(JsonRecord):
    """A move of `latest`. withdrawn: the newer versions, which no run publishes again unasked."""

    before: str | None
    after: str
    withdrawn: list[str]


def list_history(output: str) -> list[VersionSummary]:
    """Return every version of `output`, the oldest first. Raises UsageError if there are none."""
    return list(_summaries(output))


def _summaries(output: str) -> Iterator[VersionSummary]:
    """Yield the summary of every version, complete or not, the oldest first."""
    complete = _complete_versions(output)
    current = versions.latest(output)
    for name in versions.list_entries(output):
        if name in complete:
            yield _summary(output, name, _state_of(output, name, current))
        else:
            yield VersionSummary(version=name, state="incomplete")


def _complete_versions(output: str) -> list[str]:
    """Return the names of the complete versions, the oldest first, at least one.

    Raises UsageError if there are none, as in the output of `deita select`.
    """
    names = versions.list_versions(output)
    if not names:
        raise UsageError(
            f"{output!r}: no complete version here; expected the output of `deita reselect`"
        )
    return names


def _state_of(output: str, name: str, current: str | None) -> State:
    """Return what became of a complete version. current: that of `latest`, None for none.

    "not published" is a version that is newer than `latest` and was not refused.
    """
    if name == current:
        return "latest"
    refusal = refusals.read_refusal(output, name)
    if refusal is not None:
        return "withdrawn" if refusal.withdrawn else "refused"
    return "earlier" if current is not None and name < current else "not published"


def _summary(output: str, name: str, state: State) -> VersionSummary:
    """Return the summary of a complete version; "damaged" and no counts if it cannot be read.

    joined, left: against the version before; None for the first one.
    """
    uri = versions.version_uri(output, name)
    try:
        manifest = read_earlier_manifest(uri)
        changes = read_changes(uri, manifest.outputs)
    except (MissingFile, DamagedArtifact):
        return VersionSummary(version=name, state="damaged")
    selection = changes["selection"] if changes else {}
    return VersionSummary(
        version=name,
        state=state,
        selected=manifest.counts.get("selected"),
        read=manifest.counts.get("read"),
        before=changes["before"] if changes else None,
        joined=selection.get("added"),
        left=selection.get("dropped"),
    )


def find_version(output: str, name: str) -> str:
    """Return the complete version that `name` means.

    name: of a version, the beginning of it, `latest`, or `previous`: the version that the latest
    was compared with when it was made. Raises UsageError if it means none, or several.
    """
    names = _complete_versions(output)
    if name == versions.LATEST:
        return _latest(output)
    if name == PREVIOUS:
        return _previous(output, names)
    matches = [version for version in names if version.startswith(name)] if name else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(
            f"{name!r}: {len(matches)} versions of {output} begin with this "
            f"({_examples(matches)}); add characters"
        )
    entries = versions.list_entries(output)
    if name and any(version.startswith(name) for version in entries):
        raise UsageError(
            f"{name!r}: this version of {output} is incomplete: a run is writing it, or was "
            f"killed; expected one of {_examples(names)}"
        )
    raise UsageError(
        f"{name!r}: no version of {output} begins with this; expected latest, previous, or one of "
        f"{_examples(names)}"
    )


def _examples(names: Sequence[str]) -> str:
    """Return up to MAX_EXAMPLES names for a message, the newest first; names: the oldest first."""
    newest_first = list(reversed(names))
    more = ", …" if len(names) > MAX_EXAMPLES else ""
    return ", ".join(newest_first[:MAX_EXAMPLES]) + more


def _latest(output: str) -> str:
    """Return the name of the version of `latest`. Raises UsageError if it points to none."""
    current = versions.latest(output)
    if current is None:
        raise UsageError(
            f"{output}: latest points to no version; `deita versions ls` lists them, and "
            "`deita versions use` points it to one"
        )
    return current


def _previous(output: str, names: Sequence[str]) -> str:
    """Return the version that the latest was compared with."""
    current = _latest(output)
    uri = versions.version_uri(output, current)
    changes = read_changes(uri, read_earlier_manifest(uri).outputs)
    if changes is None:
        raise UsageError(
            f"{output}: no version comes before the latest, {current}, which was compared with none"
        )
    before = str(changes["before"])
    if before not in names:
        raise UsageError(
            f"{output}: {before}, the version before the latest, is gone; expected one of "
            f"{_examples(names)}"
        )
    return before


def find_result(name: str, output: str | None = None) -> str:
    """Return the folder of the result that `name` means.

    name: a version of `output` as `find_version` takes it, or, with a slash or without an output,
    a folder: of a result, or of versions, whose latest it means. Raises UsageError if there is
    none.
    """
    if output is not None and "/" not in name:
        return versions.version_uri(output, find_version(output, name))
    uri = versions.result_uri(name)
    if not storage.exists(storage.join(uri, MANIFEST)):
        hint = "" if output else "; to name a version, set --output to the folder of `reselect`"
        raise UsageError(f"{name!r}: no result here (no {MANIFEST}){hint}")
    return uri


def use_version(output: str, name: str) -> Move:
    """Point `latest`, and the card beside it, to a version that `find_version` finds.

    Versions between it and the latest, and the latest itself, are withdrawn: no run publishes them
    again unasked. Raises UsageError or DamagedArtifact for a version that is not whole.
    """
    target = find_version(output, name)
    damage = damage_of(versions.version_uri(output, target))
    if damage is not None:
        raise DamagedArtifact(f"version {target} is damaged, and latest stays: {damage}")
    current = versions.latest(output)
    withdrawn = []
    for version in versions.list_versions(output):
        if current is not None and target < version <= current:
            withdrawn.append(version)
            if refusals.read_refusal(output, version) is None:
                refusals.withdraw(output, version)
    write_version_card(output, target)
    versions.move_latest(output, target)
    refusals.forget_refusals(output, _wanted_again(output, target))
    return Move(before=current, after=target, withdrawn=withdrawn)


def _wanted_again(output: str, target: str) -> Iterator[str]:
    """Yield the version, and those before it that were withdrawn: `latest` is past them again."""
    yield target
    for version in versions.list_versions(output):
        refusal = refusals.read_refusal(output, version) if version < target else None
        if refusal is not None and refusal.withdrawn:
            yield version
