"""A pool of seven lines whose scores and vectors are written by hand, in parts as two runs might
have left them.

line  row  turns  complexity · quality      evol score  vector
1     A    2      2·3 + 1·4                 10          (1, 0)
2     B    1      3·3                        9          (1.2, 1.6): 0.6 to A
3     -    no user turn: quarantined
4     C    1      2·4                        8          (3, 0): 1 to A
5     C    the same text again: a duplicate
6     D    1      no quality                 -          (0, 1)
7     E    1      1·1                        1          none
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deita_tasks.artifacts.parts import PartSet, score_table, vector_table
from deita_tasks.artifacts.pool import Pool, write_pool
from deita_tasks.records import Conversation, ModelOutput, Quarantined, SourceRow, Turn

NAN = float("nan")


def said(letter: str, line: int, turns: int = 1) -> Conversation:
    """Row `letter`, with a column of its own."""
    spoken = [
        Turn(role, f"{letter} {role} {turn}")
        for turn in range(turns)
        for role in ("user", "assistant")
    ]  # type: ignore[arg-type]
    return Conversation(tuple(spoken), SourceRow("pool.jsonl", line), {"line": line})


A, B, C, D, E = said("A", 1, turns=2), said("B", 2), said("C", 4), said("D", 6), said("E", 7)
BAD = Quarantined(SourceRow("pool.jsonl", 3), "no_user_turn", "the roles are assistant", "{}")
INPUTS = [{"uri": "pool.jsonl", "digest": "sha256:00", "rows": 7, "format": "sharegpt"}]


def measured(values: Any, cut: Any = None, problems: dict[int, str] | None = None) -> ModelOutput:
    values = np.array(values, np.float32)
    return ModelOutput(
        values, np.array(cut if cut is not None else [0] * len(values), np.int32), problems or {}
    )


def make(store: Path) -> tuple[Pool, dict[str, Any]]:
    """The pool, and by stage where its results are."""
    pool = str(store / "pools" / "p")
    write_pool(pool, iter([A, B, BAD, C, said("C", 5), D, E]), {"inputs": INPUTS})
    ids = {"A": A.id, "B": B.id, "C": C.id, "D": D.id, "E": E.id}

    def family(folder: str, parts: list[Any]) -> dict[str, Any]:
        made = PartSet.of(str(store), folder, {"by": "hand"})
        digests = [f"{number:032d}" for number in range(len(parts))]
        for digest, table in zip(digests, parts, strict=True):
            made.write(digest, table)
        return {"family": {"uri": made.uri, "fingerprint": made.fingerprint}, "parts": digests}

    def scores(letters: str, counts: list[int], one: ModelOutput) -> Any:
        return score_table([ids[letter] for letter in letters], counts, one)

    def vectors(letters: str, one: ModelOutput) -> Any:
        return vector_table([ids[letter] for letter in letters], one)

    stages = {
        "complexity": family(
            "scores/complexity",
            [
                scores("EA", [1, 2], measured([1, 2, 1])),
                scores("CBD", [1, 1, 1], measured([2, 3, 5])),
            ],
        ),
        "quality": family(
            "scores/quality",
            [
                scores("BA", [1, 2], measured([3, 3, 4], [0, 0, 7])),
                scores(
                    "DCE",
                    [1, 1, 1],
                    measured([NAN, 4, 1], None, {0: "no digit has any probability"}),
                ),
                scores(
                    "A", [2], measured([3, 4], [0, 7])
                ),  # the row that an earlier part holds too
            ],
        ),
        "embedding": family(
            "embeddings",
            [
                vectors("DCB", measured([[0, 1], [3, 0], [1.2, 1.6]])),
                vectors("EA", measured([[NAN, NAN], [1, 0]], None, {0: "out of memory"})),
            ],
        ),
    }
    return Pool.open(pool), stages
