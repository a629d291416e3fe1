"""Results by cheap components, made without Prefect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from deita_tasks import storage
from deita_tasks.artifacts.part_tables import score_table, vector_table
from deita_tasks.artifacts.parts import PartSet, StageParts, ids_digest
from deita_tasks.artifacts.pool import Pool, pool_uri
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.artifacts.selection import write_selection
from deita_tasks.config import (
    Advanced,
    Embedding,
    Filtering,
    Scoring,
    Selection,
    Source,
    SubsetOptions,
)
from deita_tasks.conversations import Conversation
from deita_tasks.embedding.base import Embedder
from deita_tasks.loading import read_conversations
from deita_tasks.manifest import InputFile, RowsByStage, RunFacts
from deita_tasks.plan import plan_run
from deita_tasks.results.selection import write_output
from tests.support.outputs import leave_out_report
from tests.support.runs import LENGTHS
from tests.support.small_pool import write_rows


def write_result(folder: Path, rows: Sequence[Mapping[str, Any]], **selection: Any) -> str:
    """Select from `rows` by lengths and topics (`tiny_components`); return the output folder."""
    file = str(write_rows(folder / "pool.jsonl", rows))
    store = str(folder / "store")
    source, scoring = Source(input=[file]), Scoring(**LENGTHS)  # type: ignore[arg-type]
    groups = {"source": source, "scoring": scoring, "embedding": Embedding()}
    groups |= {"filtering": Filtering(), "selection": Selection(**selection)}
    advanced = Advanced(store=store)
    plan = plan_run(preset="mini", export=None, advanced=advanced, **groups)  # type: ignore[arg-type]
    uri = pool_uri(store, "p")
    read = list(read_conversations(file))
    write_pool(uri, read, [InputFile(uri=file, digest="", rows=len(rows), format="messages")])
    pool = Pool.open(uri)
    good = {row.id: row for row in read if isinstance(row, Conversation)}
    parts = {
        name: _compute(store, name, component, list(good.values()))
        for name, component in plan.components().items()
    }
    summary = write_selection(str(folder / "selection"), pool, parts, plan.specs["selection"])
    facts = RunFacts(
        preset="mini",
        parameters={name: group.model_dump(mode="json") for name, group in groups.items()},
        models=[],
        fingerprints=plan.fingerprints(),
        computed=RowsByStage(),
        reused=RowsByStage(),
        timings={},
    )
    output = str(folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        leave_out_report(patch)
        options = SubsetOptions(output_format="messages")
        write_output(pool, parts, summary, output, options, facts, seed=0)
    return output


def _compute(store: str, name: str, component: Any, rows: list[Conversation]) -> StageParts:
    is_embedder = isinstance(component, Embedder)
    folder = "embeddings" if is_embedder else f"scores/{name}"
    part_set = PartSet.create(store, folder, component.fingerprint(), component.ROW_KEY)
    keys = [getattr(row, component.ROW_KEY) for row in rows]
    if is_embedder:
        table = vector_table(keys, component.compute(rows))
    else:
        table = score_table(keys, component.score_counts(rows), *component.compute_rows(rows))
    digest = part_set.write(ids_digest(table["id"]), [table])
    assert storage.exists(part_set.part(digest))
    return StageParts(part_set=part_set, digests=[digest])
