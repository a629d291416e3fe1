"""Choose from what the stages have computed, and find the limit that fills a budget."""

import logging
from collections.abc import Mapping
from typing import Any

from prefect import task

from deita_tasks import storage
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.selection import Parts, is_selection, write_selection
from deita_tasks.config import Advanced
from deita_tasks.plan import Plan
from deita_tasks.results.sweep import find_limit
from deita_tasks.tasks.caching import CACHED, call

log = logging.getLogger(__name__)

SELECT_VERSION = 2  # of the ledger; another number selects anew


@task(name="select-rows", task_run_name="select", **CACHED)
def select_rows(
    key: str, pool: str, parts: Mapping[str, Any], selector: Mapping[str, Any]
) -> dict[str, Any]:
    """Choose, and write the ledger under `key`; returns its selection.json. `parts`: by stage, its
    family and part digests.
    """
    return write_selection(key, Pool.open(pool), parts, selector)


def select(plan: Plan, pool: Pool, work: Mapping[str, Any], options: Advanced) -> dict[str, Any]:
    """The selection that a plan makes of what the stages have computed: made anew only where it is
    not there.
    """
    uri = storage.join(options.store, "selections", selection_digest(plan, pool))
    selected = call(
        select_rows,
        options,
        is_selection(uri),
        uri,
        pool.uri,
        parts_of(work),
        plan.specs["selection"],
    )
    _tell(plan.specs["selection"]["name"], selected["counts"])
    return {
        **selected,
        "uri": uri,
    }  # what is remembered may come from where the store was once mounted


def _tell(strategy: str, counts: Mapping[str, int]) -> None:
    kept, similar = counts["selected"], counts["too_similar"]
    told = (
        "%s: %s rows reached, %s kept, %s too similar to a kept one; %s below the budget, "
        "%s unscorable"
    )
    log.info(
        told,
        strategy,
        f"{kept + similar:,}",
        f"{kept:,}",
        f"{similar:,}",
        f"{counts['below_budget']:,}",
        f"{counts['unscorable']:,}",
    )


def selection_digest(plan: Plan, pool: Pool) -> str:
    """Names all that a selection depends on: known before anything is computed."""
    contracts = {
        stage: contract for stage, contract in plan.fingerprints().items() if contract is not None
    }
    selector = contracts.pop("selection")
    return storage.digest_of(
        {
            "pool": pool.uri.rsplit("/", 1)[1],
            "stages": {stage: storage.digest_of(contract) for stage, contract in contracts.items()},
            "selector": selector,
            "version": SELECT_VERSION,
        }
    )


@task(name="solve-limit", task_run_name="solve", **CACHED)
def solve_limit(
    key: str, pool: str, parts: Mapping[str, Any], budget: int, device: str
) -> dict[str, Any]:
    """The limit that yields `budget` rows: {max_similarity, kept, candidates}."""
    return find_limit(Pool.open(pool), parts, budget, device)


def solve(
    plan: Plan, pool: Pool, work: Mapping[str, Any], budget: int, options: Advanced
) -> dict[str, Any]:
    """As `solve_limit`, made anew only where what it follows from has changed: the answer is in
    what Prefect remembers.
    """
    return call(
        solve_limit,
        options,
        True,
        selection_digest(plan, pool),
        pool.uri,
        parts_of(work),
        budget,
        options.device,
    )


def parts_of(work: Mapping[str, Any]) -> Parts:
    """By stage, where its results are."""
    return {name: {"family": done["family"], "parts": done["parts"]} for name, done in work.items()}
