"""Score and embed a pool, a shard at a time: what is there is not computed again."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
from prefect import Task, task, unmapped
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.blocks.system import Secret
from prefect.futures import PrefectFuture, as_completed

from deita_tasks import progress
from deita_tasks.config import Advanced
from deita_tasks.embedding import load_embedder
from deita_tasks.errors import UsageError
from deita_tasks.parts import Family, Shard, read_plan, score_table, vector_table
from deita_tasks.plan import Plan
from deita_tasks.pool import Pool
from deita_tasks.presets import Spec
from deita_tasks.records import Conversation
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.served import ServedScorer
from deita_tasks.tasks.cached import CACHED, bind


@lru_cache(maxsize=1)
def held_component(stage: str, spec: str) -> Any:
    """One model a process: the next one asked for takes the place of the last."""
    loaders = {"scorer": load_scorer, "embedder": load_embedder}
    wanted = json.loads(spec)
    return loaders[stage](wanted["name"], **wanted["options"])


def read_secret_block(name: str) -> str:
    """The value of a Prefect Secret block: a server's key, which goes into no parameter, result or log. Raises UsageError without one."""
    try:
        return str(Secret.load(name).get())  # type: ignore[union-attr]
    except ValueError as error:
        raise UsageError(f"api_key_block = {name!r}: Prefect has no such Secret block; make one, or set api_key_env") from error


ServedScorer.read_block = read_secret_block


def forget_models() -> None:
    """Let go of the model that this process holds."""
    held_component.cache_clear()


@task(name="score-shard", **CACHED)
def score_shard(key: str, title: str, shard: Mapping[str, Any], family: Mapping[str, str], pool: str, scorer: Spec) -> dict[str, Any]:
    """Score every pair of a shard's conversations and write them as one part."""
    component = held_component("scorer", json.dumps(scorer, sort_keys=True))

    def compute(conversations: Sequence[Conversation]) -> pa.Table:
        counts = [len(conversation.pairs) for conversation in conversations]
        return score_table([conversation.id for conversation in conversations], counts, *component.measure_rows(conversations))

    return _compute_part(Shard(**shard), Family(**family), pool, compute)


@task(name="embed-shard", **CACHED)
def embed_shard(key: str, title: str, shard: Mapping[str, Any], family: Mapping[str, str], pool: str, embedder: Spec) -> dict[str, Any]:
    """Embed a shard's conversations and write the vectors as one part."""
    component = held_component("embedder", json.dumps(embedder, sort_keys=True))

    def compute(conversations: Sequence[Conversation]) -> pa.Table:
        return vector_table([conversation.id for conversation in conversations], component.measure(conversations))

    return _compute_part(Shard(**shard), Family(**family), pool, compute)


def _compute_part(shard: Shard, family: Family, pool: str, compute: Callable[[Sequence[Conversation]], pa.Table]) -> dict[str, Any]:
    if shard.plan is not None:
        positions = read_plan(shard)["position"].to_numpy()
        family.write(shard.digest, compute([conversation for _, conversation in Pool.open(pool).read(positions)]))
    return {"digest": shard.digest, "rows": shard.rows, "uri": family.part(shard.digest)}


@dataclass(frozen=True)
class Stage:
    """One kind of model work over a pool: which task, with which component, into which family of parts."""

    name: str
    task: Task[..., Any]
    component: dict[str, Spec]  # under the keyword by which the task takes it
    family: Family


def stages(plan: Plan, options: Advanced) -> list[Stage]:
    """The model work that a plan asks for, in order."""
    found = [
        Stage(kind, score_shard, {"scorer": plan.specs[kind]}, Family.of(options.store, f"scores/{kind}", scorer.fingerprint()))
        for kind, scorer in plan.scorers.items()
    ]
    if plan.embedder is not None:
        family = Family.of(options.store, "embeddings", plan.embedder.fingerprint())
        found.append(Stage("embedding", embed_shard, {"embedder": plan.specs["embedding"]}, family))
    return found


class Work(NamedTuple):
    """A stage's distinct rows in a pool: how many, the parts that are there, and the shards that are to be computed."""

    rows: int
    present: list[Shard]
    missing: list[Shard]

    @property
    def to_compute(self) -> int:
        """Rows of the missing shards."""
        return sum(shard.rows for shard in self.missing)


def plan_stage(stage: Stage, pool: Pool, options: Advanced) -> Work:
    """What of a stage is there, and what is missing."""
    ids, positions = pool.distinct
    return Work(len(positions), *stage.family.plan(options.store, ids, positions, options.shard_rows))


def run_stage(stage: Stage, pool: Pool, options: Advanced, work: Work | None = None) -> dict[str, Any]:
    """Compute what is missing for the distinct rows of a pool; returns {"family", "parts", "computed", "reused", "tasks"}.

    `work`: what `plan_stage` has just said, if it was asked.

    Parts that are there are asked for too, so that the run shows them as Cached. A shard that fails does not stop the others: when
    all have ended, the first failure is raised, and what they computed stays.
    """
    total, present, missing = work or plan_stage(stage, pool, options)
    shards = [*present, *missing]
    titles = [f"{stage.name} {number}/{len(shards)}" for number in range(1, len(shards) + 1)]
    keys = [f"{stage.family.fingerprint}-{shard.digest}" for shard in shards]
    constant = {"family": asdict(stage.family), "pool": pool.uri, **stage.component}
    bound = bind(stage.task, options).with_options(name=stage.name, task_run_name="{title}")

    def submit(task: Task[..., Any], chosen: slice) -> list[PrefectFuture[Any]]:
        arguments: dict[str, Any] = {"key": keys[chosen], "title": titles[chosen], "shard": [asdict(shard) for shard in shards[chosen]]}
        arguments |= {name: unmapped(value) for name, value in constant.items()}
        return list(task.map(**arguments)) if shards[chosen] else []

    futures = submit(bound, slice(0, len(present)))
    futures += submit(bound.with_options(refresh_cache=True), slice(len(present), None))
    computed = sum(shard.rows for shard in missing)  # what is there may hold rows of other pools too
    rows = {future.task_run_id: shard.rows for future, shard in zip(futures[len(present) :], missing, strict=True)}
    try:
        cached = _wait(stage.name, futures, rows, total=total, reused=total - computed)
    finally:
        forget_models()
    return {
        "family": asdict(stage.family),
        "parts": [shard.digest for shard in shards],
        "computed": computed,
        "reused": total - computed,
        "tasks": {"cached": cached, "run": len(shards) - cached},
    }


def _wait(name: str, futures: Sequence[PrefectFuture[Any]], rows: Mapping[Any, int], total: int, reused: int) -> int:
    """Wait for all futures with a bar and a progress artifact; then raise the first failure, if there was one.

    Returns how many were Cached.
    """
    told = 100 * reused / max(total, 1)
    artifact: Any = create_progress_artifact(told, key=f"{name}-progress", description=f"{name}: share of {total:,} rows done")
    done = reused
    with progress.bar(name, total, reused) as advance:
        for future in as_completed(list(futures)):
            future.wait()
            finished = rows.get(future.task_run_id, 0) if future.state.is_completed() else 0
            advance(finished)
            done += finished
            if done == total or 100 * done / total - told > 2:  # each call costs a request
                told = 100 * done / total
                update_progress_artifact(artifact, told)
    for future in futures:
        future.result()
    return sum(future.state.name == "Cached" for future in futures)
