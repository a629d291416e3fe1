"""Select from what the stages have computed, and find the limit that fills a budget."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from prefect import task
from pydantic import JsonValue

from deita_tasks import storage
from deita_tasks.artifacts.evaluation import LazyPlan
from deita_tasks.artifacts.exclusions import read_exclusions
from deita_tasks.artifacts.parts import StageParts
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.selection import (
    ReferenceUse,
    SelectionSummary,
    is_selection,
    write_selection,
)
from deita_tasks.config import Advanced, Budget
from deita_tasks.manifest import Counts
from deita_tasks.plan import Plan
from deita_tasks.presets import Spec
from deita_tasks.results.records import LimitSolution
from deita_tasks.results.sweep import find_limit
from deita_tasks.tasks.caching import CACHED, call_cached
from deita_tasks.tasks.filtering import exclusion_digests, exclusion_uris
from deita_tasks.tasks.lazy import plan_lazily
from deita_tasks.tasks.references import make_reference, reference_digest
from deita_tasks.tasks.stages import StageResults, list_stages

log = logging.getLogger(__name__)

SELECT_VERSION = 10  # of the ledger; increase it to select anew


@task(name="select-rows", task_run_name="select", **CACHED)
def select_rows(
    key: str,
    pool: str,
    parts: Mapping[str, JsonValue],
    selector: Spec,
    lazy: Mapping[str, JsonValue] | None,
    exclusions: Sequence[str],
    budget_tokens: int | None,
    reference: Mapping[str, JsonValue] | None,
) -> dict[str, JsonValue]:
    """Select, and write the artifact `key`; return its selection.json.

    parts: by stage. lazy: the fields of a LazyPlan, if only what is needed was computed.
    exclusions: the artifacts of the filters. reference: the fields of a ReferenceUse, if the
    strategy compares rows with something.
    """
    plan = None if lazy is None else LazyPlan.model_validate(lazy)
    stage_parts = parts_from_json(parts)
    used = None if reference is None else ReferenceUse.model_validate(reference)
    summary = write_selection(
        key, Pool.open(pool), stage_parts, selector, plan, exclusions, budget_tokens, used
    )
    return summary.to_dict()


def select(
    plan: Plan, pool: Pool, stage_results: StageResults, options: Advanced
) -> SelectionSummary:
    """Return the selection of a plan; selects only if the store does not have it.

    Logs the rows by decision. Its URI is where the artifact is now, wherever the store was before.
    """
    uri = storage.join(options.store, "selections", selection_digest(plan, pool.digest))
    selector = plan.specs["selection"]
    parts = parts_to_json(stage_results)
    lazy = None
    if plan.is_lazy:
        lazy = plan_lazily(list_stages(plan, options), pool).to_dict()
    fields = call_cached(
        select_rows,
        options,
        is_selection(uri),
        uri,
        pool.uri,
        parts,
        selector,
        lazy,
        exclusion_uris(plan, pool.digest, options),
        plan.budget_tokens,
        _use_reference(plan, pool, options),
    )
    # The cached URI may be where the store was once mounted.
    summary = SelectionSummary.model_validate({**fields, "uri": uri})
    _log_counts(selector["name"], summary.counts)
    return summary


def _use_reference(plan: Plan, pool: Pool, options: Advanced) -> dict[str, JsonValue] | None:
    """Embed what the strategy compares rows with; return a ReferenceUse. None for nothing."""
    source = plan.reference
    if source is None:
        return None
    title = "target" if source.tags is None else "tags"
    uri = make_reference(title, source, plan, pool, options)
    return ReferenceUse(uri=uri, tags=source.tags).to_dict()


def _log_counts(strategy: str, counts: Counts) -> None:
    """Log the rows by decision. Reached are those that were compared: selected or too similar."""
    log.info(
        "%s: %s rows reached, %s selected, %s too similar; %s below the budget, %s of full strata, "
        "%s unscorable",
        strategy,
        f"{counts.selected + counts.too_similar:,}",
        f"{counts.selected:,}",
        f"{counts.too_similar:,}",
        f"{counts.below_budget:,}",
        f"{counts.stratum_full:,}",
        f"{counts.unscorable:,}",
    )


def stage_digests(plan: Plan) -> dict[str, str]:
    """Return the digest of the fingerprint of each stage that runs."""
    components = {**plan.scorers, "embedding": plan.embedder}
    return {
        stage: storage.digest_of(component.fingerprint())
        for stage, component in components.items()
        if component is not None
    }


def part_digests(plan: Plan) -> dict[str, str]:
    """Return the digest of each fingerprint whose parts a plan needs: stages, and tokens."""
    tokens = plan.filters.tokens
    counted = {} if tokens is None else {"tokens": storage.digest_of(tokens.counter.fingerprint())}
    return {**stage_digests(plan), **counted}


def selection_digest(plan: Plan, pool: str) -> str:
    """Return a digest of everything that a selection depends on, before anything is computed.

    pool: its digest.
    """
    parts = {
        "pool": pool,
        "stages": stage_digests(plan),
        "selector": plan.selector.fingerprint(),
        "evaluation": "lazy" if plan.is_lazy else "all",
        "version": SELECT_VERSION,
    }
    exclusions = exclusion_digests(plan, pool)
    if exclusions:
        parts["exclusions"] = exclusions
    if plan.budget_tokens is not None:
        parts["budget_tokens"] = plan.budget_tokens
    if plan.reference is not None:
        parts["reference"] = reference_digest(plan.reference, plan, pool)
    return storage.digest_of(parts)


@task(name="solve-limit", task_run_name="solve", **CACHED)
def solve_limit(
    key: str,
    pool: str,
    parts: Mapping[str, JsonValue],
    budget: int,
    device: str,
    exclusions: Sequence[str],
    rank_by: str | None = None,
) -> dict[str, JsonValue]:
    """Return the limit that yields `budget` rows: {max_similarity, kept, candidates}.

    pool: its URI. budget: in rows. exclusions: the artifacts of the filters. rank_by: as the
    strategy has it.
    """
    candidates = read_exclusions(exclusions).leave_out(Pool.open(pool))
    return find_limit(candidates, parts_from_json(parts), budget, device, rank_by).to_dict()


def solve(
    plan: Plan, pool: Pool, stage_results: StageResults, budget: Budget, options: Advanced
) -> LimitSolution:
    """Return the limit that yields a budget.

    Computes it only if something it depends on has changed: Prefect's cache holds the answer.
    """
    fields = call_cached(
        solve_limit,
        options,
        True,
        selection_digest(plan, pool.digest),
        pool.uri,
        parts_to_json(stage_results),
        budget.budget,
        options.device,
        exclusion_uris(plan, pool.digest, options),
        budget.rank_by,
    )
    return LimitSolution.model_validate(fields)


def parts_to_json(stage_results: StageResults) -> dict[str, JsonValue]:
    """Return where the values of each stage are, for a task's border."""
    return {stage: result.parts.to_dict() for stage, result in stage_results.items()}


def parts_from_json(parts: Mapping[str, JsonValue]) -> dict[str, StageParts]:
    """Return what `parts_to_json` was given."""
    return {stage: StageParts.model_validate(fields) for stage, fields in parts.items()}
