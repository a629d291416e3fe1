"""Rows to export, written out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.exporting.base import ExportRow
from deita_tasks.manifest import Counts, InputFile, Manifest, Model, RowsByStage

TURNS = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def conversation(*turns: str, row: int = 1, extra: Mapping[str, Any] | None = None) -> Conversation:
    """conversation("u: hello", "a: hi") in the file pool.jsonl; the first letter is the role, all
    after the colon and space the text.
    """
    return Conversation(
        tuple(Turn(TURNS[turn[0]], turn[3:]) for turn in turns),
        SourceRow("pool.jsonl", row),
        extra or {},
    )  # type: ignore[arg-type]


def rows(*conversations: Conversation) -> list[ExportRow]:
    """The conversations as selected rows: evol scores 10, 9, ... and ranks 1, 2, ..."""
    return [ExportRow(one, 10.0 - i, i + 1) for i, one in enumerate(conversations)]


AWKWARD = 'Ünïcode \u2028 "quotes" \\ back\r\n\ttab 🦊 </script> ' + " trailing "
SINGLE = conversation(
    "u: What is 2 + 2?", "a: 4", extra={"id": 7, "tags": ["maths", "easy"], "nothing": None}
)
SECOND = conversation(
    f"u: {AWKWARD}",
    "a:  starts with a space\n\n",
    row=2,
    extra={"id": 8, "tags": [], "score": 0.1 + 0.2},
)
MULTI = conversation(
    "s: Be brief.",
    "u: Hi",
    "a: Hello",
    "u: And?",
    "a: Bye",
    row=3,
    extra={"id": 9, "nested": {"a": [1, {"b": None}]}},
)
TOOLS = conversation("u: Weather?", "a: call", "t: 21 C", "a: Warm", "s: stop", "u: thanks", row=4)


def manifest(selected: int, **fields: Any) -> Manifest:
    """A run over 1,005 rows and those selected."""
    given: dict[str, Any] = {
        "created": "2026-01-02T03:04:05+01:00",
        "preset": "mini",
        "parameters": {"budget": selected, "max_similarity": 0.9},
        "seed": 0,
        "inputs": [
            InputFile(
                uri="data/pool_a.jsonl", digest="sha256:12", rows=1005 + selected, format="messages"
            )
        ],
        "pool": "/store/pools/12ab",
        "models": [
            Model(
                use="embedding",
                id="sentence-transformers/all-MiniLM-L6-v2",
                revision="c9745ed1",
                licence="apache-2.0",
            )
        ],
        "fingerprints": {
            "complexity": {"backend": "instruction_length"},
            "quality": None,
            "embedding": {},
            "selection": {},
        },
        "counts": Counts(
            read=1005 + selected,
            selected=selected,
            too_similar=3,
            below_budget=1000,
            duplicate=1,
            quarantined=1,
            unscorable=0,
        ),
        "computed": RowsByStage(complexity=5),
        "reused": RowsByStage(complexity=1000, quality=1000, embedding=1000),
        "truncated": RowsByStage(embedding=2),
        "timings": {"score": 1.5},
    }
    return Manifest(**{**given, **fields})
