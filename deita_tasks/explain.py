"""Why a conversation was kept or not: from the ledger of a result, and the pool that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks import storage
from deita_tasks.errors import UsageError
from deita_tasks.pool import Pool
from deita_tasks.records import Conversation

SHORTEST_ID = 4


@dataclass(frozen=True)
class Explanation:
    """`lines`: the ledger's lines of this id, the row first, then its duplicates. `nearest`: the kept conversation that blocked it.

    `blocked`: (id, similarity) of the rows that this one, being kept, blocked, the most similar first.
    """

    lines: list[dict[str, Any]]
    conversation: Conversation
    nearest: Conversation | None
    blocked: list[tuple[str, float]]


def explain(output: str, id: str) -> Explanation:
    """Explain the row `id` (or the one whose id begins so) of the result in `output`. Raises UsageError where there is none."""
    manifest = storage.read_json(storage.join(output, "manifest.json"))
    ledger = storage.read_table(storage.join(output, "decisions.parquet"))
    found = ledger.filter(_matches(ledger["id"], id))
    names = pc.unique(found["id"]).to_pylist()
    if len(names) != 1:
        told = f"{len(names)} ids begin so ({', '.join(names[:3])} …)" if names else "no row has this id"
        raise UsageError(f"{id!r}: {told}; expected one from the column id of {storage.join(output, 'decisions.parquet')}")
    lines = sorted(found.to_pylist(), key=lambda line: line["decision"] == "duplicate")
    nearest = lines[0]["nearest_id"]
    texts = Pool.open(manifest["pool"]).find([names[0], *([nearest] if nearest else [])])
    blocked = ledger.filter(pc.equal(ledger["nearest_id"], names[0])).select(["id", "similarity"]).to_pylist()
    pairs = sorted({(row["id"], row["similarity"]) for row in blocked}, key=lambda pair: (-pair[1], pair[0]))
    return Explanation(lines, texts[names[0]], texts.get(nearest), pairs)


def _matches(ids: pa.ChunkedArray, id: str) -> pa.ChunkedArray:
    if len(id) < SHORTEST_ID:
        raise UsageError(f"{id!r}: expected an id, or at least its first {SHORTEST_ID} characters")
    return pc.fill_null(pc.starts_with(ids, id), False)
