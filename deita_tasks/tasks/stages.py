"""Score and embed a pool, a shard at a time: what is there is not computed again."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pyarrow as pa
from prefect import Task, task, unmapped
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.blocks.system import Secret
from prefect.futures import PrefectFuture, as_completed

from deita_tasks import progress, storage
from deita_tasks.artifacts.parts import PartSet, Shard, read_plan, score_table, vector_table
from deita_tasks.artifacts.pool import Pool
from deita_tasks.config import Advanced
from deita_tasks.embedding.base import Embedder
from deita_tasks.errors import UsageError
from deita_tasks.plan import Plan
from deita_tasks.presets import Spec
from deita_tasks.records import Conversation
from deita_tasks.scoring.base import Scorer
from deita_tasks.scoring.served import ServedScorer
from deita_tasks.tasks.caching import CACHED, bind
from deita_tasks.tasks.model_cache import Bounds, borrow_model, forget_models
from deita_tasks.tasks.run_context import run_tags
from deita_tasks.tasks.runners import ShardRunner


def read_secret_block(name: str) -> str:
    """The value of a Prefect Secret block: a server's key, which goes into no parameter, result or
    log. Raises UsageError without one.
    """
    try:
        return str(Secret.load(name).get())  # type: ignore[union-attr]
    except ValueError as error:
        raise UsageError(
            f"api_key_block = {name!r}: Prefect has no such Secret block; make one, or "
            "set api_key_env"
        ) from error


ServedScorer.read_block = read_secret_block

log = logging.getLogger(__name__)

Compute = Callable[[Any, Sequence[Conversation]], pa.Table]  # with a component, of a shard's rows


@task(name="score-shard", **CACHED)
def score_shard(
    key: str,
    title: str,
    shard: Mapping[str, Any],
    family: Mapping[str, str],
    pool: str,
    spec: Spec,
    bounds: Sequence[Any],
) -> dict[str, Any]:
    """Score every pair of a shard's conversations and write them as one part."""

    def compute(scorer: Any, conversations: Sequence[Conversation]) -> pa.Table:
        counts = [len(conversation.pairs) for conversation in conversations]
        return score_table(
            [conversation.id for conversation in conversations],
            counts,
            *scorer.compute_rows(conversations),
        )

    return _compute_part(
        Shard(**shard), PartSet(**family), pool, "scorer", spec, Bounds(*bounds), compute
    )


@task(name="embed-shard", **CACHED)
def embed_shard(
    key: str,
    title: str,
    shard: Mapping[str, Any],
    family: Mapping[str, str],
    pool: str,
    spec: Spec,
    bounds: Sequence[Any],
) -> dict[str, Any]:
    """Embed a shard's conversations and write the vectors as one part."""

    def compute(embedder: Any, conversations: Sequence[Conversation]) -> pa.Table:
        return vector_table(
            [conversation.id for conversation in conversations], embedder.compute(conversations)
        )

    return _compute_part(
        Shard(**shard), PartSet(**family), pool, "embedder", spec, Bounds(*bounds), compute
    )


def _compute_part(
    shard: Shard,
    family: PartSet,
    pool: str,
    kind: str,
    spec: Spec,
    bounds: Bounds,
    compute: Compute,
) -> dict[str, Any]:
    if shard.plan is not None:
        positions = read_plan(shard)["position"].to_numpy()
        conversations = [conversation for _, conversation in Pool.open(pool).read(positions)]
        with borrow_model(kind, spec, bounds, family.fingerprint) as component:
            table = compute(component, conversations)
        family.write(shard.digest, table)
    return {"digest": shard.digest, "rows": shard.rows, "uri": family.part(shard.digest)}


@dataclass(frozen=True)
class Stage:
    """One kind of model work over a pool: which task, with which component, into which family of
    parts.

    `spec` makes the same component as `component` on every machine: what was chosen here, a number
    type or a branch's commit, stands in it.
    """

    name: str
    task: Task[..., Any]
    component: Scorer | Embedder
    spec: Spec
    family: PartSet

    @property
    def kind(self) -> str:
        """Of component: scorer or embedder."""
        return "scorer" if isinstance(self.component, Scorer) else "embedder"

    @classmethod
    def of(
        cls, name: str, task: Task[..., Any], component: Scorer | Embedder, plan: Plan, store: str
    ) -> "Stage":
        """The stage `name` of a plan, with its parts in `store`."""
        contract, spec = component.fingerprint(), plan.specs[name]
        chosen = {
            option: contract[option]
            for option in ("dtype", "revision")
            if option in contract and option in type(component).model_fields
        }
        folder = f"scores/{name}" if isinstance(component, Scorer) else "embeddings"
        pinned = {"name": spec["name"], "options": {**spec["options"], **chosen}}
        return cls(name, task, component, pinned, PartSet.of(store, folder, contract))


def stages(plan: Plan, options: Advanced) -> list[Stage]:
    """The model work that a plan asks for, in order."""
    store = storage.absolute(options.store)  # a worker may have another working directory
    found = [
        Stage.of(kind, score_shard, scorer, plan, store) for kind, scorer in plan.scorers.items()
    ]
    if plan.embedder is not None:
        found.append(Stage.of("embedding", embed_shard, plan.embedder, plan, store))
    return found


class Work(NamedTuple):
    """A stage's distinct rows in a pool: how many, the parts that are there, and the shards that
    are to be computed.
    """

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
    return Work(
        len(positions),
        *stage.family.plan(storage.absolute(options.store), ids, positions, options.shard_rows),
    )


def run_stage(
    stage: Stage, pool: Pool, options: Advanced, work: Work, crew: ShardRunner
) -> dict[str, Any]:
    """Compute what is missing for the distinct rows of a pool; returns {"family", "parts",
    "computed", "reused", "tasks"}.

    `work`: what `plan_stage` has just said.

    Parts that are there are asked for too, so that the run shows them as Cached; for that no worker
    has to be started. A shard that fails does not stop the others: when all have ended, the first
    failure is raised, and what they computed stays.
    """
    total, present, missing = work
    log.info(
        "%s: %s of %s rows to compute, shards: %d",
        stage.name,
        f"{work.to_compute:,}",
        f"{total:,}",
        len(missing),
    )
    shards = [*present, *missing]
    each: dict[str, list[Any]] = {
        "key": [f"{stage.family.fingerprint}-{shard.digest}" for shard in shards],
        "title": [f"{stage.name} {number}/{len(shards)}" for number in range(1, len(shards) + 1)],
        "shard": [asdict(shard) for shard in shards],
    }
    constant = {
        "family": asdict(stage.family),
        "pool": storage.absolute(pool.uri),
        "spec": stage.spec,
        "bounds": list(Bounds.of(options)),
    }
    bound = bind(stage.task, options).with_options(name=stage.name, task_run_name="{title}")
    futures: list[PrefectFuture[Any]] = []
    if present:
        there = {name: values[: len(present)] for name, values in each.items()}
        mapped: Any = bound.map
        futures += mapped(**there, **{name: unmapped(value) for name, value in constant.items()})
    if missing:
        absent = {name: values[len(present) :] for name, values in each.items()}
        tagged = bound.with_options(refresh_cache=True, tags=[*run_tags(), f"stage:{stage.name}"])
        futures += crew.map(tagged, stage.component, absent, constant)
    computed = sum(
        shard.rows for shard in missing
    )  # what is there may hold rows of other pools too
    rows = {
        future.task_run_id: shard.rows
        for future, shard in zip(futures[len(present) :], missing, strict=True)
    }
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


def _wait(
    name: str,
    futures: Sequence[PrefectFuture[Any]],
    rows: Mapping[Any, int],
    total: int,
    reused: int,
) -> int:
    """Wait for all futures with a bar and a progress artifact; then raise the first failure, if
    there was one.

    Returns how many were Cached.
    """
    told = 100 * reused / max(total, 1)
    artifact: Any = create_progress_artifact(
        told, key=f"{name}-progress", description=f"{name}: share of {total:,} rows done"
    )
    done = reused
    with progress.bar(name, total, reused) as advance:
        for future in as_completed(list(futures)):
            future.wait()
            finished = rows.get(future.task_run_id, 0) if future.state.is_completed() else 0
            advance(finished)
            done += finished
            if finished and (
                done == total or 100 * done / total - told > 2
            ):  # each call costs a request
                told = 100 * done / total
                update_progress_artifact(artifact, told)
    for future in futures:
        future.result()
    return sum(future.state.name == "Cached" for future in futures)
