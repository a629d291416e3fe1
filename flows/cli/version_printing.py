"""What `deita versions` prints of a version and of the changes between two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from deita_tasks.terminal import escape
from flows.cli.printing import SHORT_ID, new_console

if TYPE_CHECKING:
    from deita_tasks.reporting.changed_rows import ChangedRow
    from deita_tasks.reporting.changes import Changes
    from deita_tasks.results.version_facts import VersionFacts

TITLES = {"added": "joined", "dropped": "left"}


def print_changes(changes: Changes, after: str) -> None:
    """Print what differs between two selections, and the best rows that joined and left."""
    console = new_console()
    console.print(f"{changes.before} -> {after}\n")
    _print_facts(console, _change_facts(changes))
    for change, title in TITLES.items():
        rows = [row for row in changes.examples if row.change == change]
        total = changes.added if change == "added" else changes.dropped
        _print_rows(console, title, rows, total)


def _change_facts(changes: Changes) -> Iterator[tuple[str, str]]:
    yield "pool", f"{changes.pool_added:,} conversations added, {changes.pool_removed:,} removed"
    yield "selection", f"{changes.added:,} joined, {changes.dropped:,} left"
    for setting in changes.settings:
        yield "setting", str(setting)
    for change, why, count in changes.reasons():
        yield TITLES[change], f"{count:,}: {why}"
    for drift in changes.drift:
        sentence = drift.sentence()
        if sentence is not None:
            yield "drift", sentence


def _print_rows(console: Console, title: str, rows: Sequence[ChangedRow], total: int) -> None:
    if not rows:
        return
    console.print(f"\n{title}, {len(rows):,} of {total:,}, the best first:")
    for row in rows:
        score = "" if row.evol_score is None else f"  {row.evol_score:.2f}"
        console.print(Text.assemble(row.id[:SHORT_ID], score, (f"  {escape(row.reason)}", "dim")))
        console.print(f"  {row.snippet}")


def print_version_facts(facts: VersionFacts) -> None:
    """Print a version's counts, settings and changes."""
    _print_facts(new_console(), _version_facts(facts))


def _version_facts(facts: VersionFacts) -> Iterator[tuple[str, str]]:
    yield "version", facts.version
    yield "folder", facts.uri
    yield "pool", facts.pool
    for decision, count in facts.counts.items():
        if count:
            yield "rows", f"{count:,} {decision.replace('_', ' ')}"
    for name, value in facts.settings.items():
        yield "setting", f"{name}: {value}"
    if facts.changes is not None:
        yield from _stored_changes(facts.changes)


def _stored_changes(changes: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what changes.json says."""
    from deita_tasks.reporting.drift import describe_drift
    from deita_tasks.reporting.settings import describe_settings

    selection = changes["selection"]
    yield "since", f"{changes['before']}"
    yield "", f"{selection['added']:,} joined the selection, {selection['dropped']:,} left it"
    for line in (*describe_settings(changes["settings"]), *describe_drift(changes["drift"])):
        yield "", line


def _print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    """Print a fact a line; a name that repeats is printed once."""
    earlier = None
    for name, value in facts:
        shown = "" if name == earlier else name
        console.print(Text.assemble((f"{shown:<12}", "dim"), escape(value)))
        earlier = name
