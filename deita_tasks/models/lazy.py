"""A value that a component loads once, when first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lazy(Generic[T]):
    """Hold one value. The first caller makes it while other threads wait.

    The value is not part of a component's identity: all instances are equal, and a copy (of a
    component sent to another process) starts empty.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._value: T | None = None

    def get(self, make: Callable[[], T]) -> T:
        """Return the value; call `make` for it if there is none yet.

        An error of `make` is raised, and the next caller tries again.
        """
        with self._lock:
            if self._value is None:
                self._value = make()
            return self._value

    def release(self) -> None:
        """Forget the value, so that another model can use its memory."""
        with self._lock:
            self._value = None

    def __eq__(self, value: object) -> bool:
        return isinstance(value, Lazy)

    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[type[Lazy[T]], tuple[()]]:
        return Lazy, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Lazy[T]:
        return Lazy()
