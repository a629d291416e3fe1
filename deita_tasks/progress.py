"""Progress bars, one per stage, with rate and time left. Shown only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

from deita_tasks.terminal import SafeConsole

Advance = Callable[[int], None]

_open_bars: list[Advance] = []  # of this process, innermost last


class _Rate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "", style="cyan")


@contextmanager
def bar(name: str, total: int | None, completed: int = 0) -> Iterator[Advance]:
    """Show a bar over `total` rows (None: unknown), of which `completed` are finished already.

    Call the function that it yields with the number of rows just finished.
    """
    console = SafeConsole(stderr=True)
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
        task = progress.add_task(name, total=total, completed=completed)

        def advance(rows: int) -> None:
            progress.advance(task, rows)

        _open_bars.append(advance)
        try:
            yield advance
        finally:
            _open_bars.remove(advance)


def tick(rows: int) -> None:
    """Advance the innermost bar of this process.

    Does nothing without one: a task on another machine has no bar.
    """
    if _open_bars:
        _open_bars[-1](rows)
