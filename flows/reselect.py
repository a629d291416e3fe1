"""Select again from a pool that grows: score and embed new rows only, and write a new version.

deita reselect --input POOLS/ --output DIR
"""

# No `from __future__ import annotations` here: Prefect builds its form from these annotations.
import logging
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import JsonValue

from deita_tasks import storage, tasks
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.selection import check_size
from deita_tasks.config import (
    Advanced,
    Embedding,
    Filtering,
    Preset,
    Scoring,
    Selection,
    Source,
    Versions,
)
from deita_tasks.errors import StorageError
from deita_tasks.manifest import Manifest
from deita_tasks.plan import Plan, plan_run
from deita_tasks.reporting.approval import describe_version
from deita_tasks.results import refusals, versions
from deita_tasks.results.reading import damage_of, read_changes, read_manifest
from deita_tasks.results.records import SubsetVersion
from deita_tasks.tasks.clock import Clock
from flows.steps import FLOW_OPTIONS, choose, form_order, open_pool, run_facts, score_and_embed

log = logging.getLogger("deita_tasks.reselect")  # Prefect shows the log of this name


@form_order("source", "selection", "export", "preset")
@flow(
    name="reselect-subset",
    flow_run_name=tasks.name_run("reselect {selection.budget} of {source.name} by {preset}"),
    **FLOW_OPTIONS,
)
def reselect_subset(
    source: Source,
    export: Versions,
    preset: Preset = "mini",
    scoring: Scoring = Scoring(),  # noqa: B008 - frozen, so all runs may share the default
    embedding: Embedding = Embedding(),  # noqa: B008
    filtering: Filtering = Filtering(),  # noqa: B008
    selection: Selection = Selection(),  # noqa: B008
    advanced: Advanced = Advanced(),  # noqa: B008
) -> Any:
    """Select again from a pool that may have grown, as a new version beside the earlier ones.

    Scores and embeds only new rows. Writes `versions/<time>-<digest>/` under the output, compares
    it with the previous version, points `latest` to it, and removes the oldest versions. If
    nothing is new, the run ends within seconds in the state NothingNew. Each new version emits the
    Prefect event `deita.selection.created`. With `approve`, a person decides before `latest` moves;
    a run that may not publish its version, or not once more, ends in the state Refused.

    The result has the version, its URI, whether it is new, its manifest and the changes.
    """
    awaited = _awaited_version(export)
    if awaited is not None:
        return _conclude(awaited, _compared_with(awaited, export), export, {})
    plan = plan_run(source, preset, scoring, embedding, selection, export, advanced, filtering)
    clock = Clock()
    with open_pool(plan, source, advanced, clock) as pool:
        digest = _version_digest(plan, pool, export)
        current = versions.latest(export.output)
        if current is not None and _is_current(current, digest, export):
            return _nothing_new(current, pool, source, selection, export)
        name = versions.unpublished(export.output, digest, current)
        if name is not None and _is_refused(name, export):
            return _refused(name, export)
        previous = _previous_uri(export.output, current)
        stage_results = score_and_embed(plan, pool, advanced, clock, previous)
        summary = choose(plan, pool, stage_results, source, selection, advanced, clock)
        if name is None:
            name = versions.new_name(digest)
            groups = {"source": source, "scoring": scoring, "embedding": embedding}
            groups |= {"filtering": filtering, "selection": selection, "export": export}
            facts = run_facts(plan, preset, stage_results, clock, **groups, advanced=advanced)
            uri = versions.version_uri(export.output, name)
            how = (uri, export.subset_options(), facts, selection.seed, previous)
            tasks.export_selection(pool, stage_results, summary, *how)
    return _conclude(name, current, export, stage_results)


def _version_digest(plan: Plan, pool: Pool, export: Versions) -> str:
    """Return a digest of everything that a version depends on."""
    selection_digest = tasks.selection_digest(plan, pool.digest)
    return storage.digest_of([selection_digest, export.subset_options().model_dump()])


def _awaited_version(export: Versions) -> str | None:
    """Return the version about which a person has answered while this run was suspended.

    Raises UsageError if nobody can be asked.
    """
    if not export.approve:
        return None
    tasks.check_can_ask()
    return tasks.awaited_version()


def _is_current(name: str, digest: str, export: Versions) -> bool:
    """Return whether a version has this digest and is not damaged."""
    if not versions.has_digest(name, digest):
        return False
    damage = damage_of(versions.version_uri(export.output, name))
    if damage is not None:
        log.warning("making the damaged version %s again: %s", name, damage)
    return damage is None


def _previous_uri(output: str, current: str | None) -> str | None:
    """Return the version to compare with: the latest, or the newest if `latest` is lost."""
    names = [current] if current else versions.list_versions(output)[-1:]
    return versions.version_uri(output, names[0]) if names else None


def _read_version(name: str, export: Versions) -> tuple[Manifest, dict[str, JsonValue] | None]:
    """Return the manifest and the changes of a version; no changes if it is the first."""
    uri = versions.version_uri(export.output, name)
    manifest = read_manifest(uri)
    return manifest, read_changes(uri, manifest.outputs)


def _compared_with(name: str, export: Versions) -> str | None:
    """Return the version that was the latest when `name` was made."""
    _, changes = _read_version(name, export)
    return str(changes["before"]) if changes else None


def _conclude(
    name: str, current: str | None, export: Versions, stage_results: tasks.StageResults
) -> Any:
    """Publish the complete version `name`, if a person approves where that is wanted.

    current: the latest version when `name` was made. If `latest` has moved since, it stays there.
    """
    uri = versions.version_uri(export.output, name)
    manifest, changes = _read_version(name, export)
    if export.approve:
        question = describe_version(uri, manifest, changes)
        answer = tasks.ask_to_publish(name, question, export.approve_within)
        if answer.decision == "refuse":
            refusals.refuse(export.output, name, answer.comment)
            return _refused(name, export)
    newest = versions.latest(export.output)
    if newest not in (current, name):
        raise StorageError(
            f"{export.output}: latest has moved to {newest} since this run began, by another run "
            "or by `deita versions use`; run again"
        )
    if newest != name:
        tasks.publish(export.output, name, manifest, changes)
        refusals.forget_refusals(export.output, [name])
    _remove_old(export)
    subset = tasks.subset(uri, manifest, stage_results)
    return SubsetVersion(version=name, uri=uri, subset=subset, changes=changes)


def _remove_old(export: Versions) -> None:
    try:
        removed = versions.remove_old(export.output, export.keep_versions)
        refusals.forget_refusals(export.output, removed)
    except StorageError as error:
        log.warning("old versions stay: %s", error)


def _is_refused(name: str, export: Versions) -> bool:
    """Return whether this run must not publish the version `name`.

    A refusal is an answer to a run that asks. A version that `latest` was moved back from comes
    back with no run.
    """
    refusal = refusals.read_refusal(export.output, name)
    return refusal is not None and (export.approve or refusal.withdrawn)


def _refused(name: str, export: Versions) -> State[SubsetVersion]:
    """Return the state Refused: the version stays, and `latest` points to what it did."""
    uri = versions.version_uri(export.output, name)
    refusal = refusals.read_refusal(export.output, name)
    comment = f" ({refusal.comment})" if refusal and refusal.comment else ""
    message = (
        f"Version {name} was refused{comment}; latest stays. It is not asked about again with this "
        "pool and these parameters; without approve, a run publishes it"
    )
    if refusal and refusal.withdrawn:
        message = (
            f"Nothing new: version {name} has this pool and these parameters, and latest was moved "
            f"back from it; latest stays. `deita versions use {name} --output {export.output}` "
            "publishes it again"
        )
    return Completed(
        name="Refused", message=message, data=SubsetVersion(version=name, uri=uri, refused=True)
    )


def _nothing_new(
    name: str, pool: Pool, source: Source, selection: Selection, export: Versions
) -> State[SubsetVersion]:
    """Return the state NothingNew; checks and clean-up apply as in any run."""
    uri = versions.version_uri(export.output, name)
    counts = read_manifest(uri).counts
    unscorable = {"unscorable": counts.unscorable}
    tasks.check_good_fraction(pool, unscorable, source.min_good_fraction, excluded=counts.excluded)
    check_size(counts, selection)
    _remove_old(export)
    return Completed(
        name="NothingNew",
        message=f"Nothing new: version {name} has this pool and these parameters",
        data=SubsetVersion(version=name, uri=uri),
    )
