"""Running the flow on small pools, and reading what it left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from deita_tasks.config import (
    Advanced,
    Embedding,
    Export,
    Filtering,
    Scoring,
    Selection,
    Source,
)
from tests.support.runs import LENGTHS

SHARD_ROWS = 8


@dataclass(frozen=True)
class Run:
    """A finished run: its store, its output folder, and what the flow returned."""

    store: Path
    output: Path
    result: Mapping[str, Any]

    @property
    def manifest(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.output / "manifest.json").read_text())
        return loaded

    @property
    def selected(self) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in (self.output / "selected.jsonl").read_text().splitlines()
        ]

    @property
    def kept(self) -> list[str]:
        return [row["deita_id"] for row in self.selected]

    @property
    def decisions(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.output / "decisions.parquet").to_pylist()
        return rows

    def decided(self, decision: str) -> list[dict[str, Any]]:
        return [row for row in self.decisions if row["decision"] == decision]


def run(pool: Path | list[str], store: Path, output: Path, **given: Any) -> Run:
    """The flow as the command line calls it; `given` are fields of its parameters, whichever group
    they are in.
    """
    from flows.select import select_subset

    values = {
        "input": pool if isinstance(pool, list) else [str(pool)],
        "output": str(output),
        "store": str(store),
    }
    values |= {"budget": 10, "shard_rows": SHARD_ROWS, **given}
    if (
        values.get("preset", "mini") == "mini"
    ):  # cheap, and worked out by hand in tests/support/small_pool.py
        values = {**LENGTHS, **values}
    names = {
        "source": Source,
        "scoring": Scoring,
        "embedding": Embedding,
        "filtering": Filtering,
        "selection": Selection,
        "export": Export,
        "advanced": Advanced,
    }
    groups = {
        name: group(**{field: values.pop(field) for field in group.model_fields if field in values})
        for name, group in names.items()
    }
    preset = values.pop("preset", "mini")
    assert not values, f"no such parameters: {values}"
    return Run(store, output, select_subset(preset=preset, **groups))
