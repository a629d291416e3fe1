"""Write a selection to its output folder, with everything that explains it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deita_tasks import storage
from deita_tasks.artifacts.candidates import StagesParts
from deita_tasks.artifacts.evaluation import new_sample, sample_rows, scores_of_rows
from deita_tasks.artifacts.exclusions import EXCLUDED_FILE
from deita_tasks.artifacts.part_tables import place_vectors, vector_width
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.selection import DECISIONS_FILE, KEPT_FILE, SelectionSummary
from deita_tasks.config import SubsetOptions
from deita_tasks.errors import StorageError
from deita_tasks.exporting import load_exporter
from deita_tasks.exporting.base import ExportRow
from deita_tasks.exporting.folder import export_folder
from deita_tasks.manifest import Manifest, RowsByStage, RunFacts
from deita_tasks.reporting.changes import Changes
from deita_tasks.reporting.composition import ColumnCounts
from deita_tasks.reporting.report import Report, ReportData, build_report, required_rows
from deita_tasks.results.examination import examine
from deita_tasks.results.publish import publish_result
from deita_tasks.results.reading import CHANGES_FILE, read_earlier_manifest, read_ledger
from deita_tasks.results.version_diff import Selected, compare_selected, then_earlier, with_examples

log = logging.getLogger(__name__)

REPORT_FILE = "report.html"


class WrittenSelection(NamedTuple):
    """A selection that was written: its manifest, its report and the data in the report."""

    manifest: Manifest
    report: Report
    data: ReportData


def write_output(
    pool: Pool,
    stage_parts: StagesParts,
    selection: SelectionSummary,
    output: str,
    options: SubsetOptions,
    facts: RunFacts,
    seed: int | None,
    previous: str | None = None,
) -> WrittenSelection:
    """Write `selection` to the folder `output`, whole or not at all.

    The folder has the subset of `pool` with its card and the files for trainers,
    decisions.parquet, report.html and manifest.json, and excluded.parquet if filters left rows out.
    options: what the subset looks like.
    previous: an earlier result; then changes.json and changes.parquet compare with it.
    """
    ledger = selection.read(DECISIONS_FILE)
    excluded = selection.read(EXCLUDED_FILE) if EXCLUDED_FILE in selection.files else None
    if excluded is not None:
        pool = pool.without(excluded["id"].combine_chunks())
    kept = selection.read(KEPT_FILE)["id"].to_pylist()
    exporter = load_exporter(options.output_format, scores=options.scores)
    rows = _export_rows(pool, kept, ledger, options.complete_only)
    examination = examine(pool, ledger, _truncated_ids(pool, stage_parts), facts.languages)
    of_result = {"seed": seed, "findings": examination.findings, "left_out": len(kept) - len(rows)}
    manifest = Manifest(**dict(facts), **_facts_of(selection, pool), **of_result)
    changes = _compare(previous, pool, stage_parts, ledger, manifest)
    data = _report_data(pool, stage_parts, ledger, manifest, changes, examination.columns)
    report = build_report(data)

    def write_files(folder: Path) -> None:
        """Write all files but the manifest; excluded rows and changes only where there are any."""
        export_folder(exporter, rows, folder, manifest)
        storage.write_table(str(folder / DECISIONS_FILE), ledger)
        (folder / REPORT_FILE).write_bytes(report.html)
        if excluded is not None:
            storage.write_table(str(folder / EXCLUDED_FILE), excluded)
        if changes is not None:
            _write_changes(folder, changes)

    manifest = publish_result(output, manifest, write_files)
    return WrittenSelection(manifest, report, replace(data, manifest=manifest))


def _facts_of(selection: SelectionSummary, pool: Pool) -> dict[str, Any]:
    """Return the fields of a manifest that a selection and its pool know."""
    return {
        "inputs": pool.summary.inputs,
        "pool": storage.absolute(pool.uri),
        "counts": selection.counts,
        "strata": selection.strata,
        "truncated": RowsByStage(**selection.truncated),
        "tokens": selection.tokens,
        "notes": selection.notes,
    }


def _truncated_ids(pool: Pool, stage_parts: StagesParts) -> pa.Array:
    """Return the ids of the rows of which the embedder read only a part."""
    if "embedding" not in stage_parts or not stage_parts["embedding"].digests:
        return pa.array([], pa.string())
    parts = stage_parts["embedding"]
    table = parts.gather(["id", "cut"])
    truncated = table.filter(pc.greater(table["cut"], 0))["id"]
    ids, _ = pool.distinct
    return ids.filter(pc.is_in(pool.keys_of(ids, parts.part_set.row_key), value_set=truncated))


def _write_changes(folder: Path, changes: Changes) -> None:
    """Write the changed rows as a table, and their counts as JSON for people and scripts."""
    storage.write_table(str(folder / "changes.parquet"), changes.table)
    text = json.dumps(changes.summary(), indent=2, allow_nan=False) + "\n"
    (folder / CHANGES_FILE).write_text(text, encoding="utf-8")


def _compare(
    previous: str | None, pool: Pool, stage_parts: StagesParts, ledger: pa.Table, manifest: Manifest
) -> Changes | None:
    """Return what differs from the result under `previous`; None if it cannot be read."""
    if previous is None:
        return None
    try:
        earlier = read_earlier_manifest(previous)
        earlier_ledger = read_ledger(previous, earlier.outputs)
    except StorageError as error:
        log.warning("no comparison with the previous version: %s", error)
        return None
    samples = None
    if manifest.evaluation == "lazy":
        ids, _ = pool.distinct
        aggregation = manifest.fingerprints["selection"]["evol_score"]
        sample, new = sample_rows(ids), new_sample(ids, earlier_ledger["id"])
        scores = scores_of_rows(pool, stage_parts, [*sample, *new], aggregation)
        samples = (scores.slice(0, len(sample)), scores.slice(len(sample)))
    before, after = Selected(earlier, earlier_ledger), Selected(manifest, ledger)
    changes = compare_selected(previous.rsplit("/", 1)[1], before, after, samples)
    return with_examples(changes, then_earlier(pool, earlier.pool))


def _export_rows(
    pool: Pool, kept: Sequence[str], ledger: pa.Table, complete_only: bool
) -> list[ExportRow]:
    """Return the selected conversations in order; only they are held in memory."""
    selected = ledger.filter(pc.equal(ledger["decision"], "selected"))
    columns = selected.select(["id", "evol_score", "rank"]).to_pydict()
    scores = dict(zip(columns["id"], columns["evol_score"], strict=True))
    ranks = dict(zip(columns["id"], columns["rank"], strict=True))
    cuts = _cut_turns(pool, selected)
    conversations = pool.find(kept)
    rows = [ExportRow(conversations[id], scores[id], ranks[id], cuts.get(id)) for id in kept]
    if not complete_only:
        return rows
    complete = [row for row in rows if row.conversation.is_complete]
    log.info(
        "%d selected conversations do not end with an answer: left out of the subset",
        len(rows) - len(complete),
    )
    return complete


def _cut_turns(pool: Pool, selected: pa.Table) -> dict[str, int]:
    """Return how many turns of each selected row were left out; {} of a pool without cuts."""
    if pool.summary.cuts is None:
        return {}
    turns = selected["cut_turns"].fill_null(0).to_pylist()
    return dict(zip(selected["id"].to_pylist(), turns, strict=True))


def _report_data(
    pool: Pool,
    stage_parts: StagesParts,
    ledger: pa.Table,
    manifest: Manifest,
    changes: Changes | None,
    columns: Sequence[ColumnCounts],
) -> ReportData:
    """Collect the sample of texts and the sample of vectors that the report shows."""
    required = required_rows(ledger, manifest.evaluation == "lazy")
    conversation_ids = required.conversations
    vectors: NDArray[np.float32] | None = None
    if "embedding" in stage_parts and required.vectors:
        parts = stage_parts["embedding"]
        ids = pa.array(required.vectors, pa.string())
        keys = pool.keys_of(ids, parts.part_set.row_key).to_pylist()
        vectors = np.empty((len(keys), vector_width(parts, keys)), np.float32)
        place_vectors(parts, keys, vectors)
        conversation_ids = sorted({*required.conversations, *required.texts})
    return ReportData(
        manifest=manifest,
        ledger=ledger,
        shapes=pool.index(["id", "n_pairs", "n_words"]),
        conversations=pool.find(conversation_ids),
        quarantine=pool.quarantine(),
        vector_ids=required.vectors,
        vectors=vectors,
        columns=columns,
        changes=changes,
    )
