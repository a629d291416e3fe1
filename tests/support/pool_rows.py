"""Numbered rows, good and bad, and pools of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.conversations import Conversation, Quarantined, SourceRow, Turn


def good_row(number: int, text: str = "", uri: str = "pool.jsonl", **extra: Any) -> Conversation:
    question = Turn("user", text or f"question {number}")
    answer = Turn("assistant", f"answer to {text or number}")
    return Conversation((question, answer), SourceRow(uri, number), extra)


def good_rows(count: int) -> list[Conversation]:
    """Rows 1 to `count`."""
    return [good_row(number) for number in range(1, count + 1)]


def bad_row(number: int) -> Quarantined:
    return Quarantined(
        SourceRow("pool.jsonl", number),
        "no_user_turn",
        "the roles are assistant",
        f'{{"line": {number}}}',
    )


def pool_of(folder: Path, *rows: Conversation | Quarantined) -> Pool:
    """Write a pool of these rows to `folder` and open it."""
    write_pool(str(folder), iter(rows), [])
    return Pool.open(str(folder))


def rows_in(pool: Pool) -> Iterator[tuple[int, Conversation]]:
    """All (position, conversation) of a pool."""
    return pool.read(range(pool.summary.good))


def conversations_in(pool: Pool) -> list[Conversation]:
    return [conversation for _, conversation in rows_in(pool)]
