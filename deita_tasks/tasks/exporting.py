"""Write results to the output folder, whole or not at all."""

from collections.abc import Mapping
from typing import Any

from prefect import task

from deita_tasks.output import write_output
from deita_tasks.pool import Pool
from deita_tasks.sweeping import write_sweep
from deita_tasks.tasks.selecting import parts_of


def work_facts(work: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """What a manifest says of the stages: rows computed and rows taken from the store, by stage."""
    return {what: {name: done[what] for name, done in work.items()} for what in ("computed", "reused")}


@task(name="export-selection", task_run_name="export", result_serializer="json")
def export_selection(
    pool: str, work: Mapping[str, Any], selection: Mapping[str, Any], output: str, output_format: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the subset with its ledger, manifest and report to the output folder, whole or not at all; returns the manifest."""
    return write_output(Pool.open(pool), parts_of(work), selection, output, output_format, facts)


@task(name="compare-selections", task_run_name="sweep", result_serializer="json")
def compare_selections(
    pool: str, work: Mapping[str, Any], grid: Mapping[str, Any], output: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Make and measure every selection of a grid, and write them to the output folder, whole or not at all; returns the manifest."""
    return write_sweep(Pool.open(pool), parts_of(work), grid, output, facts)
