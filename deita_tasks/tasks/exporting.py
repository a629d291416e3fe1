"""Write results to the output folder, whole or not at all."""

from collections.abc import Mapping
from typing import Any

from prefect import task

from deita_tasks.artifacts.pool import Pool
from deita_tasks.results.selection import write_output
from deita_tasks.results.sweep import write_sweep
from deita_tasks.tasks.selecting import parts_of
from deita_tasks.tasks.ui_artifacts import show_selection, show_sweep


def work_facts(work: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """What a manifest says of the stages: rows computed and rows taken from the store, by stage."""
    return {
        what: {name: done[what] for name, done in work.items()} for what in ("computed", "reused")
    }


@task(name="export-selection", task_run_name="export", result_serializer="json")
def export_selection(
    pool: str,
    work: Mapping[str, Any],
    selection: Mapping[str, Any],
    output: str,
    output_format: str,
    facts: Mapping[str, Any],
    before: str | None = None,
) -> dict[str, Any]:
    """Write the subset with its ledger, manifest and report to the output folder, whole or not at
    all; returns the manifest.

    `before`: an earlier result to compare with. The run's page in the UI gets the report in brief,
    the best rows and the closest calls.
    """
    written = write_output(
        Pool.open(pool), parts_of(work), selection, output, output_format, facts, before
    )
    show_selection(written.data, written.report.figures, output)
    return written.manifest


@task(name="compare-selections", task_run_name="sweep", result_serializer="json")
def compare_selections(
    pool: str,
    work: Mapping[str, Any],
    grid: Mapping[str, Any],
    output: str,
    facts: Mapping[str, Any],
    device: str,
) -> dict[str, Any]:
    """Make and measure every selection of a grid, and write them to the output folder, whole or not
    at all; returns the manifest.
    """
    manifest = write_sweep(Pool.open(pool), parts_of(work), grid, output, facts, device)
    show_sweep(manifest, output)
    return manifest
