"""Seconds of wall time by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of wall time by stage; a stage may run several times."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        total = self.seconds.get(stage, 0.0) + time.perf_counter() - start
        self.seconds[stage] = round(total, 3)
