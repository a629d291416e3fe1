"""Select again from a source that grows: only new rows are scored and embedded, and each selection
is a version of its own.

deita reselect --input POOLS/ --output DIR
"""

# No `from __future__ import annotations` here: Prefect makes its form from these annotations as
# they stand.
import logging
from typing import Any

from prefect import flow
from prefect.states import Completed

from deita_tasks import storage, tasks
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.selection import check_size
from deita_tasks.config import Advanced, Embedding, Preset, Scoring, Selection, Source, Versions
from deita_tasks.errors import StorageError
from deita_tasks.plan import plan_run
from deita_tasks.results import versions
from flows.steps import ONE_AT_A_TIME, Clock, choose, score_and_embed

log = logging.getLogger("deita_tasks.reselect")  # under the name whose lines Prefect shows


@flow(
    name="reselect-subset",
    flow_run_name="reselect {selection.budget} of {source.name} by {preset}",
    task_runner=ONE_AT_A_TIME,
    result_serializer="json",
)
def reselect_subset(
    source: Source,
    export: Versions,
    preset: Preset = "mini",
    scoring: Scoring = Scoring(),  # noqa: B008 - frozen, so one default may serve all runs
    embedding: Embedding = Embedding(),  # noqa: B008
    selection: Selection = Selection(),  # noqa: B008
    advanced: Advanced = Advanced(),  # noqa: B008
) -> Any:
    """Select again from a pool that may have grown, as a new version beside the earlier ones.

    Scores and embeds only what is new. Writes `versions/<time>-<digest>/` under the output,
    compared there with the version before, and then points `latest` to it; the versions beyond the
    last few go. Where nothing is new the run ends within seconds, in a state of that name. A new
    version is told to the server as the event `deita.selection.created`. Returns {version, uri,
    new, manifest, changes}.
    """
    plan = plan_run(source, preset, scoring, embedding, selection, export, advanced)
    clock = Clock()
    with clock("load"):
        pool = tasks.load(plan, source, advanced)
    digest = storage.digest_of([tasks.selection_digest(plan, pool), export.output_format])
    before = versions.latest(export.output)
    if before is not None and versions.is_of(before, digest):
        return _nothing_new(before, pool, source, selection, export)
    done = score_and_embed(plan, pool, advanced, clock)
    groups = {
        "source": source,
        "scoring": scoring,
        "embedding": embedding,
        "selection": selection,
        "export": export,
        "advanced": advanced,
    }
    selected, facts = choose(plan, pool, done, preset, groups, clock)
    name = versions.unpointed(export.output, digest, before)
    if name is None:
        name = versions.name_of(digest)
        earlier = before or next(
            iter(versions.listed(export.output)[::-1]), None
        )  # where `latest` was lost
        compared = earlier and versions.uri_of(export.output, earlier)
        tasks.export_selection(
            pool.uri,
            done,
            selected,
            versions.uri_of(export.output, name),
            export.output_format,
            facts,
            compared,
        )
    found = _publish(name, before, export)
    found["manifest"]["tasks"] = {stage: work["tasks"] for stage, work in done.items()}
    return found


def _publish(name: str, before: str | None, export: Versions) -> dict[str, Any]:
    """Tell of the whole version `name`, point `latest` to it, and let old ones go.

    Told first: a run that is killed in between leaves a version that the next one tells of again,
    and never one that nobody heard of.
    """
    uri = versions.uri_of(export.output, name)
    manifest = storage.read_json(storage.join(uri, "manifest.json"))
    changes = (
        storage.read_json(storage.join(uri, "changes.json"))
        if "changes.json" in manifest["outputs"]
        else None
    )
    meanwhile = versions.latest(export.output)
    if meanwhile not in (before, name):
        raise StorageError(
            f"{export.output}: another run has made the version {meanwhile} since this one "
            "began; run again"
        )
    tasks.announce(export.output, name, manifest, changes)
    versions.move_latest(export.output, name)
    _forget_old(export)
    return {"version": name, "uri": uri, "new": True, "manifest": manifest, "changes": changes}


def _forget_old(export: Versions) -> None:
    try:
        versions.forget_old(export.output, export.keep_versions)
    except StorageError as error:
        log.warning("old versions stay: %s", error)


def _nothing_new(
    name: str, pool: Pool, source: Source, selection: Selection, export: Versions
) -> Any:
    """A state that says so: the pool and what a selection depends on are those of the latest
    version. What else is asked for holds.
    """
    uri = versions.uri_of(export.output, name)
    counts = storage.read_json(storage.join(uri, "manifest.json"))["counts"]
    tasks.check_floor(pool, {"unscorable": counts["unscorable"]}, source.min_good_fraction)
    check_size(counts, selection)
    _forget_old(export)
    told = f"Nothing new: the pool and the parameters are those of the version {name}"
    return Completed(
        name="NothingNew",
        message=told,
        data={"version": name, "uri": uri, "new": False, "manifest": None, "changes": None},
    )
