"""`deita store`: look after a store. The commands are those of `deita_tasks/artifacts/`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from importlib import metadata
from io import StringIO
from typing import Annotated

from cyclopts import App, Parameter, Token, validators
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from deita_tasks import storage
from deita_tasks.config import Advanced
from deita_tasks.errors import DamagedArtifact, UsageError
from flows.cli.printing import LONG_LINE, new_console

app = App(
    name="store",
    help="List, check and clean up what a store holds.",
    version=metadata.version("deita-tasks"),
)

DEFAULT_STORE: str = Advanced.model_fields["store"].default
MAX_DAYS = 36_500  # a century
STORE_COLUMNS = ("kind", "digest", "rows", "files", "size", "written", "stands for")
RIGHT_ALIGNED = ("rows", "files", "size", "artifacts", "parts before", "parts after")

Store = Annotated[str, Parameter(name="--store", help="Folder or s3:// URI of the store.")]


def _to_int(_: object, tokens: Sequence[Token]) -> int:
    text = tokens[0].value
    try:
        return int(text)  # cyclopts would round 1.5
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


Flag = Parameter(negative="")
AtLeastOne = Parameter(converter=_to_int, validator=validators.Number(gte=1))
Days = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=MAX_DAYS))]


@app.command(name="ls")
def list_store(*, store: Store = DEFAULT_STORE) -> None:
    """List pools, selections, and scores and embeddings by fingerprint."""
    from deita_tasks.artifacts.inventory import summarise

    rows = []
    for summary in summarise(_existing(store)):
        artifact = summary.artifact
        rows.append(
            (
                artifact.kind,
                artifact.digest[:12],
                "" if summary.rows is None else f"{summary.rows:,}",
                f"{len(artifact.files):,}",
                format_bytes(artifact.bytes),
                f"{artifact.newest:%Y-%m-%d %H:%M}",
                summary.stands_for or "nothing",
            )
        )
    _print_store(new_console(), rows)


def _print_store(console: Console, rows: Sequence[Sequence[str]]) -> None:
    """Print a row for each artifact; what it stands for below it, where a terminal is narrow."""
    table = _table(*STORE_COLUMNS)
    numbers = _table(*STORE_COLUMNS[:-1])
    for row in rows:
        table.add_row(*row)
        numbers.add_row(*row[:-1])
    unlimited = console.options.update(max_width=LONG_LINE)
    width = console.measure(table, options=unlimited).maximum
    if not console.is_terminal or width <= console.width:
        _console().print(table)
        return
    printed = StringIO()
    Console(file=printed, width=console.width).print(numbers)
    header, *lines = printed.getvalue().splitlines()
    console.print(Text(header, style="bold"))
    for line, row in zip(lines, rows, strict=True):
        console.print(Text(line))
        console.print(Padding(Text(row[-1], style="dim"), (0, 0, 0, 4)))


@app.command(name="du")
def disk_usage(*, store: Store = DEFAULT_STORE) -> None:
    """Show the size of each kind of artifact, from one listing."""
    from deita_tasks.artifacts.inventory import list_artifacts

    artifacts = list_artifacts(_existing(store))
    table = _table("kind", "artifacts", "files", "size")
    kinds = list(dict.fromkeys(artifact.kind for artifact in artifacts))
    for kind in [*kinds, "all"]:
        if kind == "all":
            table.add_section()
        group = [artifact for artifact in artifacts if kind in (artifact.kind, "all")]
        files = sum(len(artifact.files) for artifact in group)
        size = format_bytes(sum(artifact.bytes for artifact in group))
        table.add_row(kind, f"{len(group):,}", f"{files:,}", size)
    _console().print(table)


@app.command(name="gc")
def collect_garbage(
    *,
    store: Store = DEFAULT_STORE,
    dry_run: Annotated[bool, Flag] = False,
    grace_days: Days = 7,
    forget_days: Days | None = None,
) -> None:
    """Remove what no selection refers to, and what killed runs left.

    Parameters
    ----------
    dry_run
        Only list what would be removed.
    grace_days
        Keep files younger than this: a run that was killed may come back to them. What a run
        under way needs is kept in any case.
    forget_days
        Also remove selections and models older than this, and what only they need.
    """
    from deita_tasks.artifacts.garbage import find_abandoned_uploads, find_garbage, remove_garbage
    from deita_tasks.artifacts.runs import marked_runs

    grace = timedelta(days=grace_days)
    forget = None if forget_days is None else timedelta(days=forget_days)
    runs = marked_runs(_existing(store))
    files = find_garbage(store, grace, forget)
    uploads = find_abandoned_uploads(store, grace)
    if not dry_run:
        files = files[: remove_garbage(store, files, uploads, runs)]
    console = _console()
    for file in files:
        console.print(file.name)
    for upload in uploads:
        console.print(f"{upload.key} (an unfinished upload)")
    size = format_bytes(sum(file.bytes for file in files))
    unfinished = f", {len(uploads):,} unfinished uploads" if uploads else ""
    outcome = "would be removed" if dry_run else "removed"
    console.print(f"{len(files):,} files, {size}{unfinished} {outcome}")


@app.command(name="verify")
def verify_store(*, store: Store = DEFAULT_STORE, remove: Annotated[bool, Flag] = False) -> None:
    """Check every file against its digests and checksums. Exit status 1 if any is damaged.

    Parameters
    ----------
    remove
        Remove damaged files; the next run computes them again.
    """
    from deita_tasks.artifacts.verify import verify

    console = _console()
    results = list(verify(_existing(store), remove))
    damaged = [result for result in results if result.problem]
    for result in damaged:
        outcome = " (removed)" if remove else ""
        console.print(f"{result.name}: {result.problem}{outcome}")
    console.print(f"{len(results):,} artifacts checked, {len(damaged):,} damaged")
    if damaged and not remove:
        raise DamagedArtifact(
            f"{store}: {len(damaged):,} damaged; `deita store verify --remove` lets the next run "
            "compute them again"
        )


@app.command(name="compact")
def compact_store(
    *, store: Store = DEFAULT_STORE, rows: Annotated[int, AtLeastOne] = 50_000
) -> None:
    """Merge small parts into few large ones, which are faster to list and read.

    Parameters
    ----------
    rows
        Rows of a merged part, about.
    """
    from deita_tasks.artifacts.compaction import compact

    table = _table("folder", "parts before", "parts after")
    for merge in compact(_existing(store), rows):
        table.add_row(merge.folder, f"{merge.before:,}", f"{merge.after:,}")
    _console().print(table if table.row_count else "nothing to merge")


def _existing(store: str) -> str:
    """Return `store`. Raises UsageError if there is none: the name may be mistyped."""
    # A blank would mean the working folder.
    if not store.strip() or storage.is_empty(store):
        raise UsageError(
            f"{store!r}: no store here; expected the folder or s3:// URI that "
            "`deita select --store` was given"
        )
    return store


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in columns:
        justify = "right" if name in RIGHT_ALIGNED else "left"
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    return table


def _console() -> Console:
    # The terminal wraps; nothing is cut off.
    console = new_console()
    console.soft_wrap = True
    console.width = max(console.width, 200)
    return console


def format_bytes(count: float) -> str:
    """Return a number of bytes as a person reads it: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
