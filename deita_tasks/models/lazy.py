"""A value that a component makes once, when it is first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lazy(Generic[T]):
    """Holds one value, made by the first caller while other threads wait.

    It is no part of a component's identity: all are equal, and a copy (of a component sent to
    another process) starts out empty.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._value: T | None = None

    def get(self, make: Callable[[], T]) -> T:
        with self._lock:
            if self._value is None:
                self._value = make()
            return self._value

    def release(self) -> None:
        """Forgets the value, so that its memory can be used for another model."""
        with self._lock:
            self._value = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lazy)

    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return (Lazy, ())

    def __deepcopy__(self, memo: dict[int, Any]) -> Lazy[T]:
        return Lazy()
