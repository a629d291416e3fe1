"""The output folder: the subset, and with it everything that says how it came about."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deita_tasks import storage
from deita_tasks.artifacts.parts import PartSet, place_vectors, vector_width
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.selection import Parts
from deita_tasks.errors import StorageError
from deita_tasks.exporting import load_exporter
from deita_tasks.exporting.base import ExportRow
from deita_tasks.manifest import Manifest, digest_outputs
from deita_tasks.reporting.changes import Changes, compare
from deita_tasks.reporting.report import Report, ReportData, build_report, wanted
from deita_tasks.results.publish import publish

log = logging.getLogger(__name__)


class Written(NamedTuple):
    """What was written: the manifest, and the report with what it was made of."""

    manifest: dict[str, Any]
    report: Report
    data: ReportData


def write_output(
    pool: Pool,
    parts: Parts,
    selection: Mapping[str, Any],
    output: str,
    output_format: str,
    facts: Mapping[str, Any],
    before: str | None = None,
) -> Written:
    """Write the subset of `pool` that `selection` names, with decisions.parquet, report.html and
    manifest.json, under `output`.

    `facts`: the manifest's fields that only the run knows. `before`: an earlier result; then
    changes.json and changes.parquet say what is different from it. The folder appears whole or not
    at all.
    """
    ledger = storage.read_table(storage.join(selection["uri"], "decisions.parquet"))
    kept = storage.read_table(storage.join(selection["uri"], "kept.parquet"))["id"].to_pylist()
    inputs = pool.summary["inputs"]
    rows = _rows(pool, kept, ledger)
    exporter = load_exporter(_format(inputs) if output_format == "input" else output_format)
    found = {"counts": selection["counts"], "truncated": selection["truncated"]}
    manifest = Manifest(inputs=inputs, pool=pool.address, **found, **facts)
    data = _report_data(pool, parts, ledger, manifest, _changes(before, ledger, manifest))
    report = build_report(data)
    with tempfile.TemporaryDirectory(prefix="deita-") as scratch:
        folder = Path(scratch) / "output"
        folder.mkdir()
        exporter.export(rows, folder, manifest)
        pq.write_table(ledger, folder / "decisions.parquet", compression="zstd")
        (folder / "report.html").write_bytes(report.html)
        if data.changes is not None:
            pq.write_table(data.changes.table, folder / "changes.parquet", compression="zstd")
            (folder / "changes.json").write_text(
                json.dumps(data.changes.summary(), indent=2, allow_nan=False) + "\n",
                encoding="utf-8",
            )
        manifest = manifest.model_copy(update={"outputs": digest_outputs(folder)})
        (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
        publish(str(folder), output)
    return Written(manifest.model_dump(mode="json"), report, replace(data, manifest=manifest))


def _changes(before: str | None, ledger: pa.Table, manifest: Manifest) -> Changes | None:
    """What is different from the result under `before`; None where there is none that can be read."""
    if before is None:
        return None
    try:
        earlier = storage.read_json(storage.join(before, "manifest.json"))
        return compare(
            before.rsplit("/", 1)[1],
            storage.read_table(storage.join(before, "decisions.parquet")),
            ledger,
            (earlier, manifest),
        )
    except StorageError as error:
        log.warning("no comparison with the version before: %s", error)
        return None


def _format(inputs: Sequence[Mapping[str, Any]]) -> str:
    """The pool's own row format; of a mixed pool, the one that holds every conversation."""
    formats = {file["format"] for file in inputs if file["rows"]}
    return str(*formats) if len(formats) == 1 else "messages"


def _rows(pool: Pool, kept: Sequence[str], ledger: pa.Table) -> list[ExportRow]:
    """The kept conversations in the order chosen; only they are held in memory."""
    selected = ledger.filter(pc.equal(ledger["decision"], "selected")).select(
        ["id", "evol_score", "rank"]
    )
    facts = {row["id"]: row for row in selected.to_pylist()}
    conversations = pool.find(kept)
    return [ExportRow(conversations[id], facts[id]["evol_score"], facts[id]["rank"]) for id in kept]


def _report_data(
    pool: Pool, parts: Parts, ledger: pa.Table, manifest: Manifest, changes: Changes | None
) -> ReportData:
    """The few dozen texts and the sample of vectors that the report shows."""
    needs = wanted(ledger)
    vectors: NDArray[np.float32] | None = None
    if "embedding" in parts and needs.vectors:
        family, digests = PartSet(**parts["embedding"]["family"]), parts["embedding"]["parts"]
        vectors = np.empty(
            (len(needs.vectors), vector_width(family, digests, needs.vectors)), np.float32
        )
        place_vectors(family, digests, needs.vectors, vectors)
    return ReportData(
        manifest=manifest,
        ledger=ledger,
        shapes=pool.index(["id", "n_pairs", "n_words"]),
        conversations=pool.find(needs.conversations),
        quarantine=pool.quarantine(),
        vector_ids=needs.vectors,
        vectors=vectors,
        changes=changes,
    )
