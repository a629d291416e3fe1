"""The output folder: the subset, and with it everything that says how it came about."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deita_tasks import storage
from deita_tasks.exporting import load_exporter
from deita_tasks.exporting.base import ExportRow
from deita_tasks.exporting.manifest import Manifest, digest_outputs
from deita_tasks.pool import Pool, first_positions
from deita_tasks.publishing import publish


def write_output(pool: Pool, selection: Mapping[str, Any], output: str, output_format: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the subset of `pool` that `selection` names, with decisions.parquet, report.html and manifest.json, under `output`.

    `facts`: the manifest's fields that only the run knows. Returns the manifest. The folder appears whole or not at all.
    """
    ledger = storage.read_table(storage.join(selection["uri"], "decisions.parquet"))
    kept = storage.read_table(storage.join(selection["uri"], "kept.parquet"))["id"].to_pylist()
    rows = _rows(pool, kept, ledger)
    inputs = pool.summary["inputs"]
    exporter = load_exporter(_format(inputs) if output_format == "input" else output_format)
    manifest = Manifest(inputs=inputs, counts=selection["counts"], **facts)
    with tempfile.TemporaryDirectory(prefix="deita-") as scratch:
        folder = Path(scratch) / "output"
        folder.mkdir()
        exporter.export(rows, folder, manifest)
        pq.write_table(ledger, folder / "decisions.parquet", compression="zstd")
        manifest = manifest.model_copy(update={"outputs": digest_outputs(folder)})
        (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
        publish(str(folder), output)
    return manifest.model_dump(mode="json")


def _format(inputs: Sequence[Mapping[str, Any]]) -> str:
    """The pool's own row format; of a mixed pool, the one that holds every conversation."""
    formats = Counter(file["format"] for file in inputs)
    return next(iter(formats)) if len(formats) == 1 else "messages"


def _rows(pool: Pool, kept: Sequence[str], ledger: pa.Table) -> list[ExportRow]:
    """The kept conversations in the order chosen; only they are held in memory."""
    ids = pool.index(["id"])["id"]
    first = first_positions(ids)
    where = pd.Index(ids.to_pandas().to_numpy()[first])
    positions = first[where.get_indexer(kept)]
    facts = ledger.filter(pc.equal(ledger["decision"], "selected")).select(["id", "evol_score", "rank"]).to_pandas().set_index("id")
    order = {int(position): number for number, position in enumerate(positions)}
    rows: list[ExportRow | None] = [None] * len(kept)
    for position, conversation in pool.read(np.sort(positions)):
        fact = facts.loc[conversation.id]
        rows[order[position]] = ExportRow(conversation, float(fact["evol_score"]), int(fact["rank"]))
    return [row for row in rows if row is not None]
