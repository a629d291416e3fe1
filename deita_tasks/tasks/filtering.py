"""Leave out rows that no selection may keep, before any model works."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from prefect import task
from pydantic import JsonValue

from deita_tasks import progress, storage
from deita_tasks.artifacts.exclusions import (
    ExclusionsSummary,
    are_exclusions,
    read_exclusions,
    read_summary,
    write_contaminated,
    write_similar,
    write_window,
)
from deita_tasks.artifacts.part_tables import token_table
from deita_tasks.artifacts.parts import PartSet, StageParts
from deita_tasks.artifacts.pool import Pool
from deita_tasks.config import Advanced
from deita_tasks.conversations import Conversation
from deita_tasks.filtering import decontamination
from deita_tasks.filtering.decontamination import OverlapRule
from deita_tasks.plan import Plan, SimilarityRule, TokenCounting
from deita_tasks.results.evaluation_texts import read_evaluation_texts
from deita_tasks.tasks.caching import CACHED, call_cached
from deita_tasks.tasks.references import make_reference, reference_digest, reference_uri
from deita_tasks.tasks.runners import ShardRunner
from deita_tasks.tasks.stages import Stage, compute_shard, embed_shard, plan_stage, run_stage

log = logging.getLogger(__name__)

WINDOW_VERSION = 2  # increase it to look at every window anew
SIMILARITY_VERSION = 1  # increase it to compare all embeddings anew


@task(name="decontaminate", task_run_name="decontaminate", **CACHED)
def decontaminate(
    key: str, pool: str, files: Sequence[str], rule: Mapping[str, Any]
) -> dict[str, JsonValue]:
    """Find the rows that repeat a text of the evaluation `files`; write the artifact `key`.

    Returns its exclusions.json.
    """
    notes: list[str] = []
    texts = read_evaluation_texts(files, OverlapRule(**rule), notes)
    rows = Pool.open(pool)
    with progress.bar("decontaminate", len(rows.distinct[1])):
        return write_contaminated(key, rows, texts, notes).to_dict()


@task(name="count-tokens", **CACHED)
def count_shard(
    key: str,
    title: str,
    shard: Mapping[str, JsonValue],
    part_set: Mapping[str, JsonValue],
    pool: str,
    spec: Mapping[str, Any],
    limits: Mapping[str, JsonValue],
) -> dict[str, JsonValue]:
    """Count the tokens of a shard's conversations, and write their part."""

    def compute(counter: Any, shard_rows: Mapping[str, Conversation]) -> Iterator[pa.Table]:
        """Yield one table: for each row its counts, or the reason for none."""
        yield token_table(list(shard_rows), counter.count(list(shard_rows.values())))

    return compute_shard(shard, part_set, pool, "counter", spec, limits, compute)


@task(name="training-window", task_run_name="training window", **CACHED)
def apply_window(
    key: str,
    pool: str,
    parts: Mapping[str, JsonValue] | None,
    window: int | None,
    are_cut: bool = False,
) -> dict[str, JsonValue]:
    """Find the rows whose answers lie beyond the window; write the artifact `key`.

    parts: the token counts; None if the artifact is there. are_cut: see `write_window`. Returns its
    exclusions.json.
    """
    if parts is None:
        return read_summary(key).to_dict()
    counts = StageParts.model_validate(parts)
    return write_window(key, Pool.open(pool), counts, window, are_cut).to_dict()


@task(name="compare-embeddings", task_run_name="compare embeddings", **CACHED)
def compare_embeddings(
    key: str,
    pool: str,
    parts: Mapping[str, JsonValue] | None,
    reference: str,
    limit: float,
    device: str,
) -> dict[str, JsonValue]:
    """Find the rows whose embeddings are near to an evaluation row's; write the artifact `key`.

    parts: the embeddings; None if the artifact is there. Returns its exclusions.json.
    """
    if parts is None:
        return read_summary(key).to_dict()
    embeddings = {"embedding": StageParts.model_validate(parts)}
    return write_similar(key, Pool.open(pool), embeddings, reference, limit, device).to_dict()


def exclude(plan: Plan, pool: Pool, options: Advanced) -> Pool:
    """Return the pool without the rows that the filters of a plan leave out.

    Looks for them only if the store does not have the answer.
    """
    digests = filter_digests(plan, pool.digest)
    filters = plan.filters
    for name, digest in digests.items():
        uri = _exclusions_uri(options, digest)
        exists = are_exclusions(uri)
        if name == "decontamination" and filters.decontamination is not None:
            rule = filters.decontamination.rule._asdict()
            files = filters.decontamination.files
            fields = call_cached(decontaminate, options, exists, uri, pool.uri, files, rule)
        elif name == "similarity" and filters.similarity is not None:
            fields = _compare_embeddings(filters.similarity, uri, exists, plan, pool, options)
        elif filters.tokens is not None:
            parts = None if exists else count_tokens(filters.tokens, pool, options).to_dict()
            tokens = filters.tokens
            window = (tokens.window, tokens.cut_window is not None)
            fields = call_cached(apply_window, options, exists, uri, pool.uri, parts, *window)
        _log(name, ExclusionsSummary.model_validate(fields), pool)
    return read_exclusions(exclusion_uris(plan, pool.digest, options)).leave_out(pool)


def _compare_embeddings(
    rule: SimilarityRule, uri: str, exists: bool, plan: Plan, pool: Pool, options: Advanced
) -> dict[str, JsonValue]:
    """Return the exclusions.json of what is near to an evaluation row; embeds the whole pool."""
    reference = reference_uri(rule.source, plan, pool.digest, options)
    parts = None
    if not exists:
        make_reference("evaluation rows", rule.source, plan, pool, options)
        parts = _embed_pool(plan, pool, options).to_dict()
    return call_cached(
        compare_embeddings,
        options,
        exists,
        uri,
        pool.uri,
        parts,
        reference,
        rule.limit,
        options.device,
    )


def _embed_pool(plan: Plan, pool: Pool, options: Advanced) -> StageParts:
    """Return the parts with the vector of every row of the pool, those that were there included.

    Rows near to an evaluation row may stand anywhere, so this stage is never lazy.
    """
    embedder = plan.text_embedder
    assert embedder is not None  # a plan that compares embeddings has it
    store = storage.absolute(options.store)
    stage = Stage.from_plan("embedding", embed_shard, embedder, plan, store)
    shards = plan_stage(stage, pool, options)
    with ShardRunner(options, [embedder]) as runner:
        return run_stage(stage, pool, options, shards, runner).parts


def _log(name: str, summary: ExclusionsSummary, pool: Pool) -> None:
    """Log how many of the distinct rows a filter leaves out, by decision."""
    rows = len(pool.distinct[1])
    found = ", ".join(
        f"{count:,} {decision.replace('_', ' ')}" for decision, count in summary.counts.items()
    )
    log.info("%s: of %s rows, %s", name, f"{rows:,}", found or "none is left out")


def count_tokens(tokens: TokenCounting, pool: Pool, options: Advanced) -> StageParts:
    """Count the tokens of the rows that the store has no count of.

    Return where the counts of all rows are. A row that the chat template cannot show has a reason
    instead.
    """
    store = storage.absolute(options.store)
    counter = tokens.counter
    part_set = PartSet.create(store, "tokens", counter.fingerprint(), counter.ROW_KEY)
    spec = {"name": "chat_template", "options": counter.model_dump()}
    stage = Stage("tokens", count_shard, counter, spec, part_set)
    shards = plan_stage(stage, pool, options)
    with ShardRunner(options, [counter]) as runner:
        return run_stage(stage, pool, options, shards, runner).parts


def filter_digests(plan: Plan, pool: str) -> dict[str, str]:
    """Return the digest of what each filter of a plan leaves out, before anything is computed.

    pool: its digest. The order is that in which the filters say why a row is left out.
    """
    digests = {}
    filters = plan.filters
    if filters.decontamination is not None:
        digests["decontamination"] = storage.digest_of(
            {
                "pool": pool,
                "files": filters.decontamination.contents,
                "rule": filters.decontamination.rule._asdict(),
                "version": decontamination.VERSION,
            }
        )
    if filters.similarity is not None:
        digests["similarity"] = storage.digest_of(
            {
                "pool": pool,
                "reference": reference_digest(filters.similarity.source, plan, pool),
                "limit": filters.similarity.limit,
                "version": SIMILARITY_VERSION,
            }
        )
    if filters.tokens is not None:
        digests["training window"] = storage.digest_of(
            {
                "pool": pool,
                "tokens": filters.tokens.counter.fingerprint(),
                "window": filters.tokens.window,
                "version": WINDOW_VERSION,
            }
        )
    return digests


def exclusion_digests(plan: Plan, pool: str) -> list[str]:
    """Return the digests of all exclusions of a plan. pool: its digest."""
    return list(filter_digests(plan, pool).values())


def exclusion_uris(plan: Plan, pool: str, options: Advanced) -> list[str]:
    """Return where the exclusions of a plan are. pool: its digest.

    In the order in which the filters say why a row is left out; an artifact need not be there yet.
    """
    return [_exclusions_uri(options, digest) for digest in exclusion_digests(plan, pool)]


def _exclusions_uri(options: Advanced, digest: str) -> str:
    """Return where the store keeps what a filter leaves out: exclusions/<digest>."""
    return storage.join(storage.absolute(options.store), "exclusions", digest)
