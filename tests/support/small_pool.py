"""Thirty conversations, small enough to say by hand what a selection of them has to be.

Every text is ASCII words between single spaces, so `len(text.split())` counts its words. The
lengths differ in such a way that no two rows have the same evol score, and the word of its topic is
in every row: `tests/support/components.py` embeds by it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

TOPICS = ("bread", "chess", "rivers", "verbs", "stars", "taxes")


def numbered_row(number: int) -> dict[str, Any]:
    """Row `number`: of 1 to 30 there are five of each topic; every fourth with two user turns,
    every fifth with a system turn in front.
    """
    topic = TOPICS[number % len(TOPICS)]
    turns = [
        {
            "role": "user",
            "content": f"Question {number} on {topic}: " + "why is it so " * (number % 3 + 1),
        },
        {
            "role": "assistant",
            "content": f"It is about {topic}. "
            + " ".join(f"reason {number}.{step}" for step in range(3 * number)),
        },
    ]
    if number % 4 == 0:
        turns += [
            {"role": "user", "content": "And then?"},
            {"role": "assistant", "content": f"More of {topic} " + "again " * number},
        ]
    if number % 5 == 0:
        turns.insert(0, {"role": "system", "content": f"You teach {topic}."})
    return {
        "messages": [{**turn, "content": turn["content"].strip()} for turn in turns],
        "number": number,
    }


ROWS: tuple[Row, ...] = tuple(numbered_row(number) for number in range(1, 31))


def row_id(row: Row) -> str:
    """The id that the row must have: sha256 over the JSON of [[role, content], ...], by hand (these
    texts need no escape).
    """
    text = (
        "[" + ",".join(f'["{turn["role"]}","{turn["content"]}"]' for turn in row["messages"]) + "]"
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def row_score(row: Row) -> float:
    """The evol score of the row by the length scorers: the sum over user turns of complexity times
    quality, in float32 as stored.
    """
    import numpy as np

    turns = [turn for turn in row["messages"] if turn["role"] != "system"]
    total = 0.0
    for asked, answered in zip(turns[::2], turns[1::2], strict=True):
        instruction, response = len(asked["content"].split()), len(answered["content"].split())
        complexity = np.float32(1 + 5 * instruction / (instruction + 25))
        quality = np.float32(1 + 5 * response / (response + 50))
        total += float(complexity) * float(quality)
    return total


def ranked(rows: Iterable[Row]) -> list[str]:
    """Ids from the best evol score down."""
    return [row_id(row) for row in sorted(rows, key=lambda row: (-row_score(row), row_id(row)))]


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """`rows` as JSON Lines in `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_small_pool(path: Path) -> Path:
    """All thirty rows."""
    return write_rows(path, ROWS)
