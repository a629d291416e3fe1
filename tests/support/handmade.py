"""A pool of seven lines with scores and vectors written by hand, in parts as two runs might leave.

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

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from deita_tasks.artifacts.part_tables import score_table, vector_table
from deita_tasks.artifacts.parts import PartSet, StageParts, ids_digest
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.conversations import Conversation, Quarantined, SourceRow, Turn
from deita_tasks.manifest import InputFile, RowsByStage, RunFacts
from deita_tasks.records import ModelOutput

NAN = float("nan")


def conversation(letter: str, line: int, turns: int = 1) -> Conversation:
    """Row `letter`, with a column of its own."""
    exchange = []
    for turn in range(turns):
        exchange.append(Turn("user", f"{letter} user {turn}"))
        exchange.append(Turn("assistant", f"{letter} assistant {turn}"))
    return Conversation(tuple(exchange), SourceRow("pool.jsonl", line), {"line": line})


A = conversation("A", 1, turns=2)
B = conversation("B", 2)
C = conversation("C", 4)
C_AGAIN = conversation("C", 5)
D = conversation("D", 6)
E = conversation("E", 7)
BAD = Quarantined(SourceRow("pool.jsonl", 3), "no_user_turn", "the roles are assistant", "{}")
INPUTS = [InputFile(uri="pool.jsonl", digest="sha256:00", rows=7, format="sharegpt")]
IDS = {"A": A.id, "B": B.id, "C": C.id, "D": D.id, "E": E.id}
FACTS = RunFacts(
    preset="mini",
    parameters={"selection": {"budget": 5}},
    models=[],
    fingerprints={},
    computed=RowsByStage(complexity=5, quality=5, embedding=5),
    reused=RowsByStage(),
    timings={"load": 0.1},
)


def model_output(
    values: ArrayLike,
    truncated_tokens: Sequence[int] | None = None,
    problems: Mapping[int, str] | None = None,
) -> ModelOutput:
    array = np.array(values, np.float32)
    truncated = np.array(truncated_tokens or [0] * len(array), np.int32)
    return ModelOutput(array, truncated, dict(problems or {}))


def make(store: Path) -> tuple[Pool, dict[str, StageParts]]:
    """Write the pool and its parts; return the pool, and the parts by stage."""
    pool = str(store / "pools" / "p")
    write_pool(pool, iter([A, B, BAD, C, C_AGAIN, D, E]), INPUTS)
    no_quality = {0: "no digit has any probability"}
    complexity = [
        _scores("EA", [1, 2], model_output([1, 2, 1])),
        _scores("CBD", [1, 1, 1], model_output([2, 3, 5])),
    ]
    quality = [
        _scores("BA", [1, 2], model_output([3, 3, 4], [0, 0, 7])),
        _scores("DCE", [1, 1, 1], model_output([NAN, 4, 1], problems=no_quality)),
        _scores("A", [2], model_output([3, 4], [0, 7])),  # an earlier part has this row too
    ]
    embedding = [
        _vectors("DCB", model_output([[0, 1], [3, 0], [1.2, 1.6]])),
        _vectors("EA", model_output([[NAN, NAN], [1, 0]], problems={0: "out of memory"})),
    ]
    return Pool.open(pool), {
        "complexity": _write_parts(store, "scores/complexity", complexity),
        "quality": _write_parts(store, "scores/quality", quality),
        "embedding": _write_parts(store, "embeddings", embedding),
    }


def _scores(letters: str, counts: Sequence[int], output: ModelOutput) -> pa.Table:
    return score_table([IDS[letter] for letter in letters], counts, output)


def _vectors(letters: str, output: ModelOutput) -> pa.Table:
    return vector_table([IDS[letter] for letter in letters], output)


def _write_parts(store: Path, folder: str, tables: Sequence[pa.Table]) -> StageParts:
    part_set = PartSet.create(str(store), folder, {"by": "hand"})
    digests = [part_set.write(ids_digest(table["id"]), [table]) for table in tables]
    return StageParts(part_set=part_set, digests=digests)


def without_parts(stage_parts: Mapping[str, StageParts]) -> dict[str, StageParts]:
    """The same part sets, but none of their parts: what a pool of bad rows alone has."""
    return {
        stage: StageParts(part_set=parts.part_set, digests=[])
        for stage, parts in stage_parts.items()
    }
