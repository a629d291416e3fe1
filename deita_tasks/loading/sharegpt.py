"""ShareGPT: `conversations`, a list of {"from": ..., "value": ...}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from deita_tasks.loading.messages import Messages


class ShareGPT(Messages):
    """A column of turns with `from` and `value` (or `role` and `content`, as in some pools)."""

    name: ClassVar[str] = "sharegpt"
    expected: ClassVar[str] = "conversations (a list of {from, value})"

    column: str = "conversations"

    @classmethod
    def layouts(cls) -> Sequence[Self]:
        """Return the column `conversations`, then `conversation`, as some pools name it."""
        return (cls(), cls(column="conversation"))
