"""Score and embed a pool, one shard at a time; compute only what the store does not have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import pyarrow as pa
from prefect import Task, task, unmapped
from prefect.futures import PrefectFuture, as_completed
from pydantic import JsonValue

from deita_tasks import storage
from deita_tasks.artifacts.claims import claimed
from deita_tasks.artifacts.compaction import merge_parts
from deita_tasks.artifacts.part_tables import score_table, vector_table
from deita_tasks.artifacts.parts import PartSet, StageParts
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.shards import Shard, ShardPlan, plan_shards, read_plan
from deita_tasks.config import Advanced
from deita_tasks.conversations import Conversation
from deita_tasks.embedding.base import Embedder
from deita_tasks.errors import ServerError
from deita_tasks.models.batch_progress import report_share
from deita_tasks.models.stopping import stopped_by
from deita_tasks.models.token_counter import TokenCounter
from deita_tasks.plan import Plan, pin_spec
from deita_tasks.presets import Spec
from deita_tasks.results.records import TaskCounts
from deita_tasks.scoring.base import Scorer
from deita_tasks.tasks.caching import CACHED, bind
from deita_tasks.tasks.model_cache import (
    ShardLimits,
    borrow_model,
    raise_if_run_ends,
    release_models,
)
from deita_tasks.tasks.run_context import run_tags
from deita_tasks.tasks.run_progress import RowProgress, batches_reported, shown_progress
from deita_tasks.tasks.runners import ShardRunner

log = logging.getLogger(__name__)

JsonFields: TypeAlias = Mapping[str, JsonValue]

# With a component, of the conversations of a shard by key: the tables of their parts.
Compute: TypeAlias = Callable[[Any, Mapping[str, Conversation]], Iterator[pa.Table]]


@task(name="score-shard", **CACHED)
def score_shard(
    key: str,
    title: str,
    shard: JsonFields,
    part_set: JsonFields,
    pool: str,
    spec: Spec,
    limits: JsonFields,
) -> dict[str, JsonValue]:
    """Score every pair of a shard's conversations, and write their part.

    Returns its parts, their URI and the number of rows computed now; the scores stay in the store.
    """

    def compute(scorer: Any, shard_rows: Mapping[str, Conversation]) -> Iterator[pa.Table]:
        """Yield a table of scores for each group of conversations that the scorer finishes.

        They come as they are ready, not in the order of the shard.
        """
        keys, conversations = list(shard_rows), list(shard_rows.values())
        done = 0
        for finished in scorer.iterate_rows(conversations):
            done += len(finished.positions)
            report_share(done, len(keys))
            rows = [conversations[position] for position in finished.positions]
            ids = [keys[position] for position in finished.positions]
            yield score_table(ids, scorer.score_counts(rows), *finished.scores)

    return compute_shard(shard, part_set, pool, "scorer", spec, limits, compute)


@task(name="embed-shard", **CACHED)
def embed_shard(
    key: str,
    title: str,
    shard: JsonFields,
    part_set: JsonFields,
    pool: str,
    spec: Spec,
    limits: JsonFields,
) -> dict[str, JsonValue]:
    """Embed a shard's conversations, and write their part.

    Returns its parts, their URI and the number of rows computed now; the vectors stay in the store.
    """

    def compute(embedder: Any, shard_rows: Mapping[str, Conversation]) -> Iterator[pa.Table]:
        """Yield one table with a vector for each row, or the reason for none."""
        yield vector_table(list(shard_rows), embedder.compute(list(shard_rows.values())))

    return compute_shard(shard, part_set, pool, "embedder", spec, limits, compute)


def compute_shard(
    shard_fields: JsonFields,
    part_set_fields: JsonFields,
    pool: str,
    kind: str,
    spec: Spec,
    limits: JsonFields,
    compute: Compute,
) -> dict[str, JsonValue]:
    """Compute the rows of a shard that no part holds, and write them; return where all are.

    kind: of the component, in `model_cache.LOADERS`.
    """
    shard = Shard.model_validate(shard_fields)
    part_set = PartSet.model_validate(part_set_fields)
    if shard.part is not None:
        return _shard_result([shard.part], 0, part_set)
    rows = Pool.open(pool).read_shard(read_plan(shard), part_set.row_key)
    with stopped_by(raise_if_run_ends), claimed(part_set.claim(shard.digest)):
        # From an earlier attempt, or from a run that had the claim before.
        parts = part_set.index(part_set.digests_of(shard.digest))
        known_keys = {key for keys in parts.values() for key in keys.to_pylist()}
        missing = {key: row for key, row in rows.items() if key not in known_keys}
        digests = list(parts)
        if missing:
            shard_limits = ShardLimits.model_validate(limits)
            with (
                borrow_model(kind, spec, shard_limits, part_set.fingerprint) as component,
                batches_reported(shard.digest, shard.rows),
            ):
                tables = compute(component, missing)
                digests += part_set.write_as_they_come(shard.digest, tables)
        digests = merge_parts(part_set, shard.digest, digests)
    return _shard_result(digests, len(missing), part_set)


def _shard_result(digests: Sequence[str], computed: int, part_set: PartSet) -> dict[str, JsonValue]:
    """Return a shard's result as JSON: its parts, where they are, and the rows computed now."""
    return {"parts": list(digests), "computed": computed, "uri": part_set.uri}


@dataclass(frozen=True)
class Stage:
    """One kind of model work over a pool.

    task: computes a shard. component: computes its values. spec: makes the same component on
    every machine; it pins what was chosen here, such as a number type or a branch's commit.
    part_set: where the results go.
    """

    name: str
    task: Task[..., Any]
    component: Scorer | Embedder | TokenCounter
    spec: Spec
    part_set: PartSet

    @property
    def kind(self) -> str:
        """Kind of component: scorer, embedder or counter."""
        if isinstance(self.component, TokenCounter):
            return "counter"
        return "scorer" if isinstance(self.component, Scorer) else "embedder"

    @classmethod
    def from_plan(
        cls, name: str, task: Task[..., Any], component: Scorer | Embedder, plan: Plan, store: str
    ) -> Stage:
        """Return the stage `name` of a plan, with its parts in `store`."""
        fingerprint = component.fingerprint()
        spec = pin_spec(plan.specs[name], component, fingerprint)
        kind, _, _ = name.partition(":")  # a column of the user's own is in its fingerprint
        folder = f"scores/{kind}" if isinstance(component, Scorer) else "embeddings"
        part_set = PartSet.create(store, folder, fingerprint, component.ROW_KEY)
        return cls(name, task, component, spec, part_set)


@dataclass(frozen=True)
class StageResult:
    """What a stage did for a pool: where its values are, and rows computed, reused and skipped.

    Of rows with the same text, one is computed, and the others reuse its value. Skipped are rows
    without a value, which cannot change the selection.
    """

    parts: StageParts
    computed: int
    reused: int
    tasks: TaskCounts
    skipped: int = 0

    @property
    def share(self) -> float:
        """The share of the rows that have a value, or a reason for none; 1 of no rows."""
        available = self.computed + self.reused
        if not available:
            return 1.0
        return available / (available + self.skipped)


StageResults: TypeAlias = Mapping[str, StageResult]  # by stage: complexity, quality, embedding


def list_stages(plan: Plan, options: Advanced) -> list[Stage]:
    """Return the model work that a plan needs, in order.

    Scorers in the order of the plan, then the embedder, if the strategy needs one.
    """
    store = storage.absolute(options.store)  # a worker may have another working directory
    stages = [
        Stage.from_plan(kind, score_shard, scorer, plan, store)
        for kind, scorer in plan.scorers.items()
    ]
    if plan.embedder is not None:
        stages.append(Stage.from_plan("embedding", embed_shard, plan.embedder, plan, store))
    return stages


def plan_stage(stage: Stage, pool: Pool, options: Advanced) -> ShardPlan:
    """Return all shards of a stage over the distinct rows of a pool.

    Rows with the same key, such as equal texts, count once. A part that is present is in the plan
    too.
    """
    keys, positions = pool.distinct_by(stage.part_set.row_key)
    store = storage.absolute(options.store)
    return plan_shards(stage.part_set, store, keys, positions, options.shard_rows)


def run_stage(
    stage: Stage, pool: Pool, options: Advanced, plan: ShardPlan, runner: ShardRunner
) -> StageResult:
    """Compute the missing shards of a stage.

    Also asks for the parts that are present, so that the run shows them as Cached; that starts no
    worker. A failing shard does not stop the others: when all have ended, this raises the first
    failure, and what they computed stays. If a model server is away, the others would fail as well:
    this raises at once, and the runner stops them.
    """
    total = len(pool.distinct[1])
    planned = plan.rows_to_compute  # a part that is present may hold rows of other pools too
    log.info(
        "%s: %s of %s rows to compute, shards: %d",
        stage.name,
        f"{planned:,}",
        f"{total:,}",
        len(plan.missing),
    )
    try:
        with shown_progress(stage.name, total, total - planned) as shown:
            present = submit_present(stage, pool, options, plan.present)
            missing = submit_missing(stage, pool, options, plan.missing, runner, stage.name)
            cached = wait_for([*present, *missing], by_task_run(missing, plan.missing), shown)
    finally:
        release_models()
    shards = collect(missing)
    return StageResult(
        parts=StageParts(
            part_set=stage.part_set,
            digests=[*(str(shard.part) for shard in plan.present), *shards.digests],
        ),
        computed=shards.computed,  # fewer than planned, if another run computed some meanwhile
        reused=total - shards.computed,
        tasks=TaskCounts(cached=cached, run=len(present) + len(missing) - cached),
    )


class ComputedShards(NamedTuple):
    """The parts that some shards are in, and the number of rows that were computed for them."""

    digests: list[str]
    computed: int


def collect(futures: Sequence[PrefectFuture[Any]]) -> ComputedShards:
    """Return what finished shards have given.

    Parts in the order of the futures. Raises what the first failed one raised.
    """
    digests: list[str] = []
    computed = 0
    for future in futures:
        result = future.result()
        digests += result["parts"]
        computed += result["computed"]
    return ComputedShards(digests, computed)


def submit_present(
    stage: Stage, pool: Pool, options: Advanced, shards: Sequence[Shard]
) -> list[PrefectFuture[Any]]:
    """Ask for parts that are present: the run shows them as Cached. Starts no worker.

    Return their futures, in the order of the shards.
    """
    if not shards:
        return []
    arguments = _shard_arguments(stage, shards, stage.name)
    constant = _constant_arguments(stage, pool, options)
    bound = bind(stage.task, options).with_options(name=stage.name, task_run_name="{title}")
    mapped: Any = bound.map
    futures: list[PrefectFuture[Any]] = mapped(
        **arguments, **{name: unmapped(value) for name, value in constant.items()}
    )
    return list(futures)


def submit_missing(
    stage: Stage,
    pool: Pool,
    options: Advanced,
    shards: Sequence[Shard],
    runner: ShardRunner,
    title: str,
    models: int = 1,
) -> list[PrefectFuture[Any]]:
    """Submit one task for each shard to compute.

    title: what the run calls them, numbered. models: that a worker keeps loaded.
    """
    if not shards:
        return []
    bound = bind(stage.task, options).with_options(
        name=stage.name,
        task_run_name="{title}",
        refresh_cache=True,
        tags=[*run_tags(), f"stage:{stage.name}"],
    )
    arguments = _shard_arguments(stage, shards, title)
    constant = _constant_arguments(stage, pool, options, models)
    return runner.map(bound, stage.component, arguments, constant)


def _shard_arguments(stage: Stage, shards: Sequence[Shard], title: str) -> dict[str, list[Any]]:
    """Return the arguments that differ between shards, each with a value for every shard.

    key: of Prefect's cache, by component and rows. title: numbered from 1, such as "quality 1/4".
    """
    fingerprint = stage.part_set.fingerprint
    return {
        "key": [f"{fingerprint}-{shard.digest}" for shard in shards],
        "title": [f"{title} {number}/{len(shards)}" for number in range(1, len(shards) + 1)],
        "shard": [shard.to_dict() for shard in shards],
    }


def _constant_arguments(
    stage: Stage, pool: Pool, options: Advanced, models: int = 1
) -> dict[str, Any]:
    """Return the arguments that all shards share, as JSON and URIs that any worker can read."""
    return {
        "part_set": stage.part_set.to_dict(),
        "pool": storage.absolute(pool.uri),
        "spec": stage.spec,
        "limits": ShardLimits.from_options(options, models).to_dict(),
    }


def by_task_run(
    futures: Sequence[PrefectFuture[Any]], shards: Sequence[Shard]
) -> dict[UUID, Shard]:
    """Return the shard that each future computes, by task run id."""
    return {future.task_run_id: shard for future, shard in zip(futures, shards, strict=True)}


def wait_for(
    futures: Sequence[PrefectFuture[Any]],
    shards: Mapping[UUID, Shard] | None = None,
    shown: RowProgress | None = None,
) -> int:
    """Wait for all futures; then raise the first failure, at once if it is a server's.

    shards: those that some futures compute, by task run id, for `shown` to show when they are
    finished. Return how many futures were Cached.
    """
    shards = shards or {}
    for future in as_completed(list(futures)):
        future.wait()
        _raise_if_server_is_away(future)
        shard = shards.get(future.task_run_id)
        if shown is not None and shard is not None and future.state.is_completed():
            shown.finish(shard)
    for future in futures:
        future.result()
    return sum(future.state.name == "Cached" for future in futures)


def _raise_if_server_is_away(future: PrefectFuture[Any]) -> None:
    """Raise the ServerError with which a future failed; other failures can wait for the rest."""
    if future.state.is_failed():
        error = future.result(raise_on_failure=False)
        if isinstance(error, ServerError):
            raise error
