"""Rewrite and judge texts, shard by shard.

A reply is in the store before anyone reads it, so a run that was killed pays for none again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from prefect import get_run_logger, task
from pydantic import JsonValue

from deita_tasks import storage
from deita_tasks.artifacts.claims import claimed
from deita_tasks.config import Requests, Runtime
from deita_tasks.evolving.chains import Chain, Seed
from deita_tasks.evolving.data_set import ChainSet
from deita_tasks.evolving.evolve import evolve
from deita_tasks.evolving.judge import judge
from deita_tasks.evolving.replies import ChatModel
from deita_tasks.evolving.result import RoleUsage
from deita_tasks.evolving.roles import ChatModels, open_models
from deita_tasks.evolving.shards import (
    has_chains,
    judge_digest,
    read_chains,
    rewrite_digest,
    shard_uri,
    shards_of,
    write_chains,
)
from deita_tasks.models.stopping import stopped_by
from deita_tasks.progress import Pace
from deita_tasks.scoring.concurrent_map import concurrent_map
from deita_tasks.tasks.caching import CACHED, call_cached
from deita_tasks.tasks.model_cache import raise_if_run_ends
from deita_tasks.tasks.run_progress import ShownPace, shown_pace
from deita_tasks.tasks.training_scorer import ScorerPlan

CLAIM_FILE = "claim.json"
SHARD_SEEDS = 32  # chains of a task, at least
MOST_SHARDS = 50  # tasks of a stage: Prefect records each


class MadeChains(NamedTuple):
    """The chains of a run, and what both models were asked for."""

    chains: ChainSet
    usage: list[RoleUsage]


def _shown(title: str, total: int) -> AbstractContextManager[ShownPace]:
    """Return what counts the chains of a stage, on a bar in the terminal and in the UI."""
    return shown_pace(title, Pace(total, unit="chains"), f"scorer-{title}")


def make_chains(plan: ScorerPlan, requests: Requests, options: Runtime) -> MadeChains:
    """Return the chains, rewritten and judged. The store keeps them by shard, and every reply."""
    store = storage.absolute(options.store)
    models = open_models(plan.roles, requests, store)
    rewritten = _rewrite(plan, models.rewriter, store, options)
    judged = _judge(plan, models.judge, rewritten, store, options)
    chains = [chain for digest in judged for chain in read_chains(shard_uri(store, digest))]
    usage = _usage(models)
    for line in usage:
        get_run_logger().info("%s", line)
    return MadeChains(ChainSet(chains=chains, facts=plan.facts), usage)


def _rewrite(plan: ScorerPlan, model: ChatModel, store: str, options: Runtime) -> list[str]:
    """Return what names the shards of rewritten chains."""
    size = max(SHARD_SEEDS, -(-len(plan.seeds) // MOST_SHARDS))
    shards = shards_of(plan.seeds, size)
    digests: list[str] = []
    with _shown("rewrite", len(plan.seeds)) as stage:
        for number, seeds in enumerate(shards, 1):
            digest = rewrite_digest(
                seeds, plan.templates, plan.roles.rewriter, plan.rounds, plan.random_seed
            )
            uri = shard_uri(store, digest)
            title = f"rewrite, shard {number} of {len(shards)}"
            work = (uri, title, seeds, plan, model, stage.advance)
            call_cached(rewrite_texts, options, has_chains(uri), *work)
            stage.update(min(number * size, len(plan.seeds)))
            digests.append(digest)
    return digests


def _judge(
    plan: ScorerPlan, model: ChatModel, rewritten: Sequence[str], store: str, options: Runtime
) -> list[str]:
    """Return what names the shards of judged chains."""
    digests: list[str] = []
    done = 0
    with _shown("judge", len(plan.seeds)) as stage:
        for number, shard in enumerate(rewritten, 1):
            digest = judge_digest(shard, plan.templates, plan.roles.judge, plan.random_seed)
            uri = shard_uri(store, digest)
            title = f"judge, shard {number} of {len(rewritten)}"
            work = (uri, title, shard_uri(store, shard), plan, model, stage.advance)
            call_cached(judge_texts, options, has_chains(uri), *work)
            done += len(read_chains(uri))
            stage.update(done)
            digests.append(digest)
    return digests


@task(name="rewrite-texts", task_run_name="{title}", **CACHED)
def rewrite_texts(
    key: str,
    title: str,
    seeds: Sequence[Seed],
    plan: ScorerPlan,
    model: ChatModel,
    advance: Callable[[], None],
) -> dict[str, JsonValue]:
    """Rewrite the texts of a shard round by round; write the chains `key`.

    Returns {"chains": their number}. advance: called after each chain, for the progress.
    """

    def work(seed: Seed) -> Chain:
        """Return the chain of a seed; one that ends early says why."""
        return evolve(seed, plan.templates, model.ask, plan.random_seed, plan.rounds)

    return _write_shard(key, seeds, work, model, advance)


@task(name="judge-texts", task_run_name="{title}", **CACHED)
def judge_texts(
    key: str,
    title: str,
    rewritten: str,
    plan: ScorerPlan,
    model: ChatModel,
    advance: Callable[[], None],
) -> dict[str, JsonValue]:
    """Have the chains of a shard judged; write the chains `key`.

    rewritten: where the chains without scores are. Returns {"chains": their number}.
    """

    def work(chain: Chain) -> Chain:
        """Return the chain with its scores, or with the problem why it has none."""
        return judge(chain, plan.templates, model.ask, plan.random_seed)

    return _write_shard(key, read_chains(rewritten), work, model, advance)


def _write_shard(
    uri: str,
    items: Sequence[Any],
    work: Callable[[Any], Chain],
    model: ChatModel,
    advance: Callable[[], None],
) -> dict[str, JsonValue]:
    """Write the chain that `work` makes of each item, unless another run has done it."""
    with stopped_by(raise_if_run_ends), claimed(storage.join(uri, CLAIM_FILE)):
        if not has_chains(uri):
            chains: dict[int, Chain] = {}
            for place, chain in concurrent_map(work, items, model.options.concurrency):
                chains[place] = chain
                advance()
            write_chains(uri, [chains[place] for place in range(len(items))])
    return {"chains": len(items)}


def _usage(models: ChatModels) -> list[RoleUsage]:
    """Return what each model was asked for in this run, the rewriter first."""
    by_role = {"rewrite": models.rewriter, "judge": models.judge}
    return [RoleUsage(role=role, **model.usage._asdict()) for role, model in by_role.items()]
