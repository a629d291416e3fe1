"""One bar a stage in the terminal, with rate and time left; nothing where standard error is not a
terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[int], None]

_open: list[Advance] = []  # the bars of this process, innermost last


class _Rate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "", style="cyan")


@contextmanager
def bar(name: str, total: int | None, done: int = 0) -> Iterator[Advance]:
    """A bar over `total` rows (None: unknown), of which `done` were there already; call what it
    gives with the rows just finished.
    """
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn(f"{name:<11}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, disable=not sys.stderr.isatty(), redirect_stdout=False
    ) as progress:
        task = progress.add_task(name, total=total, completed=done)

        def advance(rows: int) -> None:
            progress.advance(task, rows)

        _open.append(advance)
        try:
            yield advance
        finally:
            _open.remove(advance)


def tick(rows: int) -> None:
    """Advance the innermost bar of this process; nothing where there is none (a task on another
    machine has none).
    """
    if _open:
        _open[-1](rows)
