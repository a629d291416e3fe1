"""`deita versions`: look at the versions of `deita reselect`, compare them, and go back to one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table

from deita_tasks.errors import UsageError
from flows.cli.printing import new_console
from flows.cli.version_printing import print_changes, print_version_facts

app = App(
    name="versions",
    help="List and compare the versions of deita reselect, and go back to one.",
    version=metadata.version("deita-tasks"),
)

OUTPUT = Parameter(name="--output", help="Folder or s3:// URI of the output of `deita reselect`.")
Output = Annotated[str, OUTPUT]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")]


@app.command(name="ls")
def list_versions(*, output: Output, json: Json = False) -> None:
    """List the versions: which is the latest, what each selected, and what joined and left."""
    from deita_tasks.results.history import list_history

    history = list_history(output)
    if json:
        _print_json([version.to_dict() for version in history])
        return
    table = Table(box=None, pad_edge=False)
    for name in ("version", "state", "selected", "rows", "joined", "left"):
        is_number = name not in ("version", "state")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
    for version in history:
        counts = (version.selected, version.read, version.joined, version.left)
        cells = ("" if count is None else f"{count:,}" for count in counts)
        table.add_row(version.version, version.state, *cells)
    new_console().print(table)


@app.command(name="diff")
def diff_versions(
    before: str | None = None,
    after: str | None = None,
    /,
    *,
    output: Annotated[str | None, OUTPUT] = None,
    store: str | None = None,
    json: Json = False,
) -> None:
    """Compare two versions: what joined and left, with texts and reasons, settings and drift.

    Without names, the latest with the one before it.

    Parameters
    ----------
    before
        A version, the beginning of its name, latest, previous, or the folder of a result (with a
        slash).
    after
        The same for the version to compare with it; latest by default.
    store
        Store of the runs, if it has moved since.
    """
    from deita_tasks.results.history import find_result
    from deita_tasks.results.version_diff import diff_results, name_of

    if output is None and (before is None or after is None):
        raise UsageError("--output is required, or the folders of two results")
    old = find_result(before or "previous", output)
    new = find_result(after or "latest", output)
    changes = diff_results(old, new, store)
    if json:
        _print_json(changes.to_json(name_of(new)))
    else:
        print_changes(changes, name_of(new))


@app.command(name="show")
def show_version(
    version: str = "latest", /, *, output: Annotated[str | None, OUTPUT] = None, json: Json = False
) -> None:
    """Show a version: its counts, the settings it was made with, and its changes.

    Parameters
    ----------
    version
        A version, the beginning of its name, latest, previous, or the folder of a result (with a
        slash).
    """
    from deita_tasks.results.history import find_result
    from deita_tasks.results.version_facts import read_facts

    if output is None and "/" not in version:
        raise UsageError("--output is required, or the folder of a result")
    facts = read_facts(find_result(version, output))
    if json:
        _print_json(facts.to_dict())
    else:
        print_version_facts(facts)


@app.command(name="use")
def use_version(version: str, /, *, output: Output) -> None:
    """Move latest to a version: back to an older one, or forward again.

    A version that latest is moved back from stays, and no run publishes it again. With another
    pool or other parameters, the next run publishes a new version.

    Parameters
    ----------
    version
        A version, the beginning of its name, or previous: the version before the latest.
    """
    from deita_tasks.results.history import use_version

    move = use_version(output, version)
    console = new_console()
    if move.before == move.after:
        console.print(f"{output}/latest points to {move.after} already")
        return
    console.print(f"{output}/latest: {move.before or 'nothing'} -> {move.after}")
    if move.withdrawn:
        console.print(
            f"no run publishes {', '.join(reversed(move.withdrawn))} again; with another pool or "
            f"other parameters, the next `deita reselect` publishes a new version and compares it "
            f"with {move.after}"
        )


def _print_json(value: Mapping[str, Any] | list[Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")
