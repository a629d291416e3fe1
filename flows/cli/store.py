"""`deita store`: looking after a store. What each command does is in `deita_tasks/artifacts/`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deita_tasks import storage
from deita_tasks.config import Advanced
from deita_tasks.errors import DamagedArtifact, UsageError

app = typer.Typer(
    help="See what a store holds, check it, and make it smaller.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Store = Annotated[str, typer.Option("--store", help="Folder or s3:// URI of the store.")]
DEFAULT: str = Advanced.model_fields["store"].default


@app.command("ls")
def list_store(store: Store = DEFAULT) -> None:
    """List pools, selections, and scores and embeddings by fingerprint, with what each stands for."""
    from deita_tasks.artifacts.inventory import describe

    table = _table("kind", "digest", "rows", "files", "size", "written", "what it stands for")
    for one in describe(_there(store)):
        it = one.artifact
        rows = "" if one.rows is None else f"{one.rows:,}"
        table.add_row(
            it.kind,
            it.digest[:12],
            rows,
            f"{len(it.files):,}",
            size(it.bytes),
            f"{it.newest:%Y-%m-%d %H:%M}",
            one.stands_for or "nothing",
        )
    _console().print(table)


@app.command("du")
def disk_usage(store: Store = DEFAULT) -> None:
    """Show what each kind takes, from one listing; nothing is read."""
    from deita_tasks.artifacts.inventory import artifacts

    found = artifacts(_there(store))
    table = _table("kind", "artifacts", "files", "size")
    for kind in dict.fromkeys(one.kind for one in found):
        these = [one for one in found if one.kind == kind]
        table.add_row(
            kind,
            f"{len(these):,}",
            f"{sum(len(one.files) for one in these):,}",
            size(sum(one.bytes for one in these)),
        )
    table.add_section()
    table.add_row(
        "all",
        f"{len(found):,}",
        f"{sum(len(one.files) for one in found):,}",
        size(sum(one.bytes for one in found)),
    )
    _console().print(table)


@app.command("gc")
def collect_garbage(
    store: Store = DEFAULT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    grace_days: Annotated[
        float,
        typer.Option(
            min=0, help="What was written within so many days stays: a run may be under way."
        ),
    ] = 7,
    forget_days: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Let selections older than so many days go, and what only they need.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Remove what no selection refers to, and what finished or killed runs have left."""
    from deita_tasks.artifacts.garbage import abandoned, collect, garbage

    grace = timedelta(days=grace_days)
    files = garbage(
        _there(store), grace, None if forget_days is None else timedelta(days=forget_days)
    )
    uploads = abandoned(store, grace)
    if not dry_run:
        collect(store, files, uploads)
    console = _console()
    for file in files:
        console.print(file.name, markup=False)
    for upload in uploads:
        console.print(f"{upload.key} (an upload that was never finished)", markup=False)
    left = f", {len(uploads):,} unfinished uploads" if uploads else ""
    console.print(
        f"{len(files):,} files, "
        f"{size(sum(file.bytes for file in files))}{left}{' would go' if dry_run else ' removed'}"
    )


@app.command("verify")
def verify_store(
    store: Store = DEFAULT,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Remove what is damaged; the next run computes it again."),
    ] = False,
) -> None:
    """Read everything and check it against its digests and checksums. Status 1 where something is
    damaged.
    """
    from deita_tasks.artifacts.verify import verify

    console, checked = _console(), list(verify(_there(store), remove))
    damaged = [one for one in checked if one.problem]
    for one in damaged:
        console.print(f"{one.name}: {one.problem}{' (removed)' if remove else ''}", markup=False)
    console.print(f"{len(checked):,} artifacts checked, {len(damaged):,} damaged")
    if damaged and not remove:
        raise DamagedArtifact(
            f"{store}: {len(damaged):,} damaged; `deita store verify --remove` lets the next "
            "run compute them again"
        )


@app.command("compact")
def compact_store(
    store: Store = DEFAULT,
    rows: Annotated[
        int, typer.Option(min=1, help="Rows a merged part is to have, about.")
    ] = 50_000,
) -> None:
    """Merge small parts into few large ones, so that listing and reading them is quick."""
    from deita_tasks.artifacts.compaction import compact

    table = _table("folder", "parts before", "parts after")
    for merged in compact(_there(store), rows):
        table.add_row(merged.folder, f"{merged.before:,}", f"{merged.after:,}")
    _console().print(table if table.row_count else "nothing to merge")


def _there(store: str) -> str:
    """`store`. Raises UsageError where there is none: an empty answer would hide a mistyped name."""
    if storage.is_empty(store):
        raise UsageError(
            f"{store}: no store here; expected the folder or s3:// URI that `deita select "
            "--store` was given"
        )
    return store


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    numbers: Sequence[str] = ("rows", "files", "size", "artifacts", "parts before", "parts after")
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=True)
    return table


def _console() -> Console:
    return Console(
        highlight=False, soft_wrap=True, width=max(Console().width, 200)
    )  # the terminal wraps; nothing is cut off


def size(count: float) -> str:
    """Bytes as a person reads them: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
