"""Write results to the output folder, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect import task
from prefect.assets import materialize
from pydantic import JsonValue

from deita_tasks import config
from deita_tasks.artifacts.exclusions import read_exclusions
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.references import read_reference
from deita_tasks.artifacts.selection import ReferenceUse, SelectionSummary
from deita_tasks.config import Grid
from deita_tasks.manifest import Manifest, RunFacts
from deita_tasks.plan import Plan
from deita_tasks.results.records import Subset, Sweep
from deita_tasks.results.selection import write_output
from deita_tasks.results.sweep import write_sweep
from deita_tasks.selecting.reference import ReferenceKind
from deita_tasks.tasks.assets import materializing
from deita_tasks.tasks.filtering import exclusion_uris
from deita_tasks.tasks.references import make_reference
from deita_tasks.tasks.selecting import parts_from_json, parts_to_json
from deita_tasks.tasks.stages import StageResults
from deita_tasks.tasks.ui_artifacts import show_selection, show_sweep


def export_selection(
    pool: Pool,
    stage_results: StageResults,
    selection: SelectionSummary,
    output: str,
    options: config.SubsetOptions,
    facts: RunFacts,
    seed: int,
    previous: str | None = None,
) -> Subset:
    """Write the subset with its ledger, manifest and report. previous: a result to compare with."""
    write = materializing(write_selection_output, output, "selection", [pool.uri])
    manifest = write(
        pool.uri,
        parts_to_json(stage_results),
        selection.to_dict(),
        output,
        options.model_dump(mode="json"),
        facts.to_dict(),
        seed,
        previous,
    )
    return subset(output, Manifest.model_validate(manifest), stage_results)


def subset(output: str, manifest: Manifest, stage_results: StageResults) -> Subset:
    """Return the selection in `output`, with the tasks that this run took for it.

    Tasks are counted by stage, as run or cached.
    """
    tasks = {stage: result.tasks for stage, result in stage_results.items()}
    return Subset(uri=output, manifest=manifest, tasks=tasks)


@materialize(
    "deita://selection", name="export-selection", task_run_name="export", result_serializer="json"
)
def write_selection_output(
    pool: str,
    parts: Mapping[str, JsonValue],
    selection: Mapping[str, JsonValue],
    output: str,
    options: Mapping[str, JsonValue],
    facts: Mapping[str, JsonValue],
    seed: int,
    previous: str | None = None,
) -> dict[str, JsonValue]:
    """Write a selection to its output folder; return its manifest.

    Shows the report in brief, the best rows and the near misses on the run's page in the UI.
    """
    written = write_output(
        Pool.open(pool),
        parts_from_json(parts),
        SelectionSummary.model_validate(selection),
        output,
        config.SubsetOptions.model_validate(options),
        RunFacts.model_validate(facts),
        seed,
        previous,
    )
    show_selection(written.data, written.report.figures, output)
    return written.manifest.to_dict()


def export_sweep(
    pool: Pool,
    stage_results: StageResults,
    grid: Grid,
    output: str,
    facts: RunFacts,
    plan: Plan,
    options: config.Advanced,
) -> Sweep:
    """Make, measure and write every selection of a grid."""
    references = {}
    for kind, source in plan.references.items():
        uri = make_reference(kind, source, plan, pool, options)
        references[kind] = ReferenceUse(uri=uri, tags=source.tags).to_dict()
    sweep = write_sweep_output(
        pool.uri,
        exclusion_uris(plan, pool.digest, options),
        parts_to_json(stage_results),
        grid.model_dump(mode="json"),
        output,
        facts.to_dict(),
        options.device,
        references,
    )
    return Sweep.model_validate(sweep)


@task(name="compare-selections", task_run_name="sweep", result_serializer="json")
def write_sweep_output(
    pool: str,
    exclusions: Sequence[str],
    parts: Mapping[str, JsonValue],
    grid: Mapping[str, JsonValue],
    output: str,
    facts: Mapping[str, JsonValue],
    device: str,
    references: Mapping[ReferenceKind, Mapping[str, JsonValue]],
) -> dict[str, JsonValue]:
    """Write a sweep to its output folder, whole or not at all; return it."""
    rows = read_exclusions(exclusions).leave_out(Pool.open(pool))
    used = {kind: ReferenceUse.model_validate(fields) for kind, fields in references.items()}
    sweep = write_sweep(
        rows,
        parts_from_json(parts),
        Grid.model_validate(grid),
        output,
        RunFacts.model_validate(facts),
        device,
        {kind: read_reference(use.uri, rows, use.tags) for kind, use in used.items()},
    )
    show_sweep(sweep)
    return sweep.to_dict()
