"""Cut long rows at a turn, before filters and models see them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prefect import task
from pydantic import JsonValue

from deita_tasks import progress, storage
from deita_tasks.artifacts.parts import StageParts
from deita_tasks.artifacts.pool import Pool, pool_uri, read_summary
from deita_tasks.config import Advanced
from deita_tasks.models.token_counter import TokenCounter
from deita_tasks.plan import Plan, TokenCounting
from deita_tasks.results.cut_pool import write_cut_pool
from deita_tasks.tasks.caching import CACHED, call_cached
from deita_tasks.tasks.filtering import count_tokens
from deita_tasks.tasks.loading import is_intact, mark_plan

log = logging.getLogger(__name__)

CUT_VERSION = 1  # increase it to cut every pool anew


@task(name="cut-turns", task_run_name="cut at a turn", **CACHED)
def write_cuts(
    key: str,
    pool: str,
    parts: Mapping[str, JsonValue] | None,
    counter: Mapping[str, JsonValue],
    window: int,
) -> dict[str, JsonValue]:
    """Write the pool `key`, which is `pool` with its long rows cut; return its pool.json.

    parts: the token counts; None if it is there. counter: the options of what counts tokens.
    """
    if parts is None:
        return read_summary(key).to_dict()
    rows = Pool.open(pool)
    counts = StageParts.model_validate(parts)
    with progress.bar("cut", rows.summary.good):
        return write_cut_pool(key, rows, counts, TokenCounter(**counter), window).to_dict()


@contextmanager
def cut_turns(plan: Plan, pool: Pool, options: Advanced) -> Iterator[Pool]:
    """Give the pool with its long rows cut, if the plan asks for it; `gc` keeps it meanwhile."""
    tokens = plan.filters.tokens
    if tokens is None or tokens.cut_window is None:
        yield pool
        return
    uri = pool_uri(storage.absolute(options.store), _cut_digest(tokens, pool.digest))
    with mark_plan(plan, uri, options):
        exists = is_intact(uri)
        parts = None if exists else count_tokens(tokens, pool, options).to_dict()
        counter = tokens.counter.model_dump()
        window = tokens.cut_window
        call_cached(write_cuts, options, exists, uri, pool.uri, parts, counter, window)
        cut = Pool.open(uri)
        rows = f"{len(cut.cuts):,} of {cut.summary.good:,}"
        log.info("training window: %s rows are cut at a turn", rows)
        yield cut


def _cut_digest(tokens: TokenCounting, pool: str) -> str:
    """Return the digest of a pool whose rows are cut. pool: that of the whole rows."""
    return storage.digest_of(
        {
            "cut": pool,
            "tokens": tokens.counter.fingerprint(),
            "window": tokens.cut_window,
            "version": CUT_VERSION,
        }
    )
