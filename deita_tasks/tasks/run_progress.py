"""How far a run is, on its page in the Prefect UI and on the terminal; never in a result.

    with shown_progress("quality", total=392, finished=0) as progress:
        ...                       # a shard of this process reports its batches (`batches_reported`)
        progress.finish(shard)    # one of another process only its end

The artifact says "quality: 128 of 392 rows, about 40 s left".
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

from deita_tasks.artifacts.shards import Shard
from deita_tasks.models.batch_progress import reported_to
from deita_tasks.progress import Pace, pace_bar

log = logging.getLogger(__name__)

SECONDS_PER_UPDATE = 2.0  # of the artifact: each is a request


class ShownPace:
    """A pace that a progress artifact shows, and a bar.

    The artifact is updated every SECONDS_PER_UPDATE at most, and at the end.
    """

    def __init__(
        self, title: str, pace: Pace, show_bar: Callable[[], None], artifact: UUID
    ) -> None:
        self.pace = pace
        self._title = title
        self._show_bar = show_bar
        self._artifact = artifact
        self._updated = time.monotonic()

    def update(self, done: int, more: str = "") -> None:
        """Show that `done` rows are done. more: to say after it."""
        now = time.monotonic()
        if done == self.pace.done:
            return
        self.pace.update(done, now)
        self._show_bar()
        if done == self.pace.total or now - self._updated >= SECONDS_PER_UPDATE:
            self._updated = now
            self._update_artifact(more)

    def advance(self) -> None:
        """Show that one more is done; never more than the total, where work is tried again."""
        done = self.pace.done + 1
        self.update(done if self.pace.total is None else min(done, self.pace.total))

    def _update_artifact(self, more: str) -> None:
        """Send percentage and text to the server; a server that does not answer costs no result."""
        percent = percent_of(self.pace)
        text = f"{self._title}: {self.pace}{more}"
        try:
            update_progress_artifact(self._artifact, percent, description=text)
        except (HTTPError, PrefectException) as error:  # work goes on, nobody sees how far
            log.debug("progress is not shown: %s", error)


def percent_of(pace: Pace) -> float:
    """Return the share of a pace that is done, in percent: 0 if nobody knows, 100 of no rows."""
    if pace.total is None:
        return 0.0
    return 100 * pace.done / pace.total if pace.total else 100.0


@contextmanager
def shown_pace(title: str, pace: Pace, key: str) -> Iterator[ShownPace]:
    """Show a bar in the terminal and a progress artifact in the UI; give what updates both."""
    text = f"{title}: {pace}"
    artifact: Any = create_progress_artifact(percent_of(pace), key=key, description=text)
    with pace_bar(title, pace) as show_bar:
        yield ShownPace(title, pace, show_bar, artifact)


def artifact_key(name: str) -> str:
    """Return a stage's name as a key: Prefect takes small letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


class RowProgress:
    """The rows of a stage that are done: what is settled, and what shards have computed since.

    Several threads may report at a time. weight: what a row of a shard counts; less than 1 where a
    row goes through several stages.
    """

    def __init__(self, shown: ShownPace, weight: float) -> None:
        self._shown = shown
        self._weight = weight
        self._settled = float(shown.pace.done)
        self._shards: dict[str, float] = {}  # rows done, by digest
        self._lock = threading.Lock()

    def report(self, shard: str, rows: float) -> None:
        """Note that a shard has so many rows, of those that it had to compute.

        Fewer than before if it has failed and begins again.
        """
        with self._lock:
            self._shards[shard] = rows
            self._show()

    def finish(self, shard: Shard) -> None:
        """Note that a shard has all of its rows."""
        self.report(shard.digest, shard.rows)

    def settle(self, rows: float) -> None:
        """Note that so many rows are done in all, whatever shards computed.

        Never fewer than before: what is done stays done.
        """
        with self._lock:
            self._settled = max(rows, self._rows())
            self._shards.clear()
            self._show()

    def _rows(self) -> float:
        """Return the rows that are done, in all shards too. The caller holds the lock."""
        return self._settled + self._weight * sum(self._shards.values())

    def _show(self) -> None:
        """Show whole rows, never more than the total. The caller holds the lock.

        The small addition makes up for sums of weights such as 1/3, which end just below a whole
        number.
        """
        total = self._shown.pace.total or 0
        self._shown.update(min(total, int(self._rows() + 1e-6)))


_current: ContextVar[RowProgress | None] = ContextVar("current", default=None)


@contextmanager
def shown_progress(
    name: str, total: int, finished: int, weight: float = 1.0
) -> Iterator[RowProgress]:
    """Show the progress of a stage; shards that are submitted within report their batches to it.

    Those of other processes report nothing before they are finished.
    """
    with shown_pace(name, Pace(total, finished), f"{artifact_key(name)}-progress") as shown:
        progress = RowProgress(shown, weight)
        token = _current.set(progress)  # threads get a copy of what is set when they begin
        try:
            yield progress
        finally:
            _current.reset(token)


def batches_reported(shard: str, rows: int) -> AbstractContextManager[None]:
    """Within this block, show how many of the `rows` rows of a shard its batches have done."""
    progress = _current.get()
    if progress is None:
        return nullcontext()
    return reported_to(lambda share: progress.report(shard, share * rows))
