"""How far some work is, and how long the rest takes; bars that show it, only on a terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from deita_tasks.terminal import SafeConsole

Advance = Callable[[int], None]

RECENT = 30.0  # seconds: batches of this time say how fast the work is

_open_bars: list[Advance] = []  # of this process, innermost last


class Point(NamedTuple):
    """How many rows were done at a time."""

    time: float
    done: int


class Pace:
    """How many rows are done, and how long the others take if they go on like the last ones.

    total: None if it is not known. The time before the first batch is finished does not count: it
    is that of loading a model. Of the others, only RECENT seconds do.
    """

    def __init__(self, total: int | None, done: int = 0, unit: str = "rows") -> None:
        self.total = total
        self.done = done
        self._unit = unit
        self._points: deque[Point] = deque()  # the last before RECENT, and all since

    def begin(self, total: int, done: int) -> None:
        """Set what was not known at the start: the total, and what was done before."""
        self.total = total
        self.done = done

    def update(self, done: int, now: float) -> None:
        """Take note that `done` rows are done. now: of a clock that only goes on, in seconds."""
        if done == self.done:
            return
        self.done = done
        self._points.append(Point(now, done))
        while len(self._points) > 2 and self._points[1].time <= now - RECENT:
            self._points.popleft()

    def seconds_left(self) -> float | None:
        """Return how long the rest takes.

        None before a second batch is done, and without a total.
        """
        if self.total is None or len(self._points) < 2:
            return None
        first, last = self._points[0], self._points[-1]
        rows = last.done - first.done
        seconds = last.time - first.time
        if rows <= 0 or seconds <= 0:
            return None
        return (self.total - last.done) * seconds / rows

    def __str__(self) -> str:
        """Return such as "128 of 392 rows, about 40 s left"."""
        if self.total is None:
            return f"{self.done:,} {self._unit}"
        text = f"{self.done:,} of {self.total:,} {self._unit}"
        left = self.seconds_left()
        if left is None or self.done >= self.total:
            return text
        return f"{text}, about {duration(max(1.0, left))} left"


def duration(seconds: float) -> str:
    """Return seconds as a person says them: under 1 s, 40 s, 12 min, 3.5 h.

    Minutes from 90 s on, hours from 90 min on.
    """
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def pace_bar(name: str, pace: Pace) -> Iterator[Callable[[], None]]:
    """Show a bar for what `pace` says. Call the function that it yields when that has changed.

    Nothing is shown where standard error is no terminal.
    """
    text = str(pace)
    columns = (
        SpinnerColumn(),
        TextColumn(f"{name:<11}"),
        BarColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    console = SafeConsole(stderr=True)
    hidden = not sys.stderr.isatty()
    with Progress(*columns, console=console, disable=hidden, redirect_stdout=False) as progress:
        bar = progress.add_task(name, total=pace.total, completed=pace.done, pace=text)

        def show() -> None:
            """Draw the bar as the pace is now."""
            progress.update(bar, total=pace.total, completed=pace.done, pace=str(pace))

        yield show


@contextmanager
def bar(name: str, total: int | None, completed: int = 0, unit: str = "rows") -> Iterator[Advance]:
    """Show a bar over `total` rows (None: unknown), of which `completed` are finished already.

    Call the function that it yields with the number of rows just finished.
    """
    pace = Pace(total, completed, unit)
    with pace_bar(name, pace) as show:

        def advance(rows: int) -> None:
            """Count rows that were just finished, at the time of the call."""
            pace.update(pace.done + rows, time.monotonic())
            show()

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
