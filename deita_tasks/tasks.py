"""Every Prefect task: the stages with caching, retries and progress around them. The one module here that imports Prefect.

A task takes references and returns references, as JSON: texts, scores and vectors stay in the store. Its `key` says what its result
depends on (digests and fingerprints, never a run, a batch size or a device), and Prefect's cache goes by that alone. Whether the artifact
behind a remembered reference is still there is looked at before the task is called; where it is not, the caller asks for
`refresh_cache`, so a reference to nothing is never trusted.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
from prefect import Task, get_run_logger, task, unmapped
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.blocks.system import Secret
from prefect.filesystems import WritableFileSystem
from prefect.futures import PrefectFuture, as_completed
from prefect.tasks import exponential_backoff
from pydantic import Field

from deita_tasks import progress, storage
from deita_tasks.config import Advanced, Source
from deita_tasks.embedding import load_embedder
from deita_tasks.errors import DamagedArtifact, InputError, ModelError, StorageError, TooManyBadRows, UsageError
from deita_tasks.loading import open_pool
from deita_tasks.output import write_output
from deita_tasks.parts import Family, Shard, read_plan, score_table, vector_table
from deita_tasks.plan import Plan
from deita_tasks.pool import Pool, first_positions, pool_uri, write_pool
from deita_tasks.preflight import SAMPLE_ROWS, check
from deita_tasks.presets import Spec
from deita_tasks.records import Conversation, Quarantined
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.served import ServedScorer
from deita_tasks.selections import Parts, is_selection, write_selection
from deita_tasks.sweeping import find_limit, write_sweep

LOADER_VERSION = 1  # of what a pool's rows become; another number loads every pool anew
SELECT_VERSION = 1  # of the ledger; another number selects anew


def by_key(context: Any, arguments: Mapping[str, Any]) -> str:
    """A task's name and its `key` argument, of which the last part names it: nothing else changes its result."""
    return f"{context.task.name}-{arguments['key'].rsplit('/', 1)[-1]}"


def worth_retrying(task: Any, run: Any, state: Any) -> bool:
    """A wrong option, a bad pool or an unfit model does not get better by trying again; anything else may."""
    problem = state.result(raise_on_failure=False)
    return not isinstance(problem, (UsageError, InputError, ModelError))


class StoreResults(WritableFileSystem):
    """What Prefect remembers, in the run's own store, written atomically.

    A record names the serializer that is to read it, so one that names another than JSON is refused: a store may be shared, and
    reading a pickle is running it. Prefect takes what cannot be read for not there.
    """

    _block_type_name = "DEITA results"

    uri: str = Field(description="Folder or s3:// URI of the records.")

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]
        """The record `path`. Raises DamagedArtifact for one that is not JSON in JSON."""
        record = storage.read_json(storage.join(self.uri, path))
        try:
            serializer = record["metadata"]["serializer"]["type"]
        except (TypeError, KeyError):
            serializer = None
        if serializer != "json":
            raise DamagedArtifact(f"{path}: a result of type {serializer!r}; expected 'json'")
        return json.dumps(record).encode()

    def write_path(self, path: str, content: bytes, _sync: bool = True) -> None:  # type: ignore[override]
        """Remember the record `path`."""
        storage.write_bytes(storage.join(self.uri, path), content)


# What every task that leaves an artifact has in common.
CACHED: dict[str, Any] = {
    "cache_key_fn": by_key,
    "persist_result": True,
    "result_serializer": "json",
    "retry_condition_fn": worth_retrying,
    "retry_jitter_factor": 0.5,
}

# ---- load


def plan_pool(store: str, files: Sequence[str], format: str) -> tuple[str, bool]:
    """Where the pool of `files` lies, by their content, and whether it is there and whole."""
    contents = [[uri, storage.content_digest(uri)] for uri in files]
    uri = pool_uri(store, storage.digest_of({"files": contents, "format": format, "loader": LOADER_VERSION}))
    try:
        return uri, Pool.open(uri).is_intact()
    except StorageError:
        return uri, False


def load(plan: Plan, source: Source, options: Advanced) -> Pool:
    """The pool of a plan's files, read anew only where it is not there."""
    uri, intact = plan_pool(options.store, plan.files, source.format)
    with progress.bar("load", None):
        call(load_pool, options, intact, uri, plan.files, source.format)
    pool = Pool.open(uri)
    check_floor(pool, {}, source.min_good_fraction)
    return pool


@task(name="load-pool", task_run_name="load pool", **CACHED)
def load_pool(key: str, files: Sequence[str], format: str) -> dict[str, Any]:
    """Read every row of `files` into the pool artifact `key`; returns its pool.json."""
    facts: dict[str, Any] = {"inputs": []}
    summary = write_pool(key, _rows(files, format, facts["inputs"]), facts)
    if not summary["good"] + summary["quarantined"]:
        raise InputError(f"{', '.join(files)}: no rows; expected conversations")
    return summary


def _rows(files: Sequence[str], format: str, inputs: list[dict[str, Any]]) -> Iterator[Conversation | Quarantined]:
    """The rows of all files in order; says in `inputs` what each file was."""
    logger = get_run_logger()
    for uri in files:
        file = open_pool(uri, format)
        logger.info("reading %s", file)
        digest, rows = storage.content_digest(uri), 0
        for row in file:
            rows += 1
            progress.tick(1)
            yield row
        if storage.content_digest(uri) != digest:  # the pool is filed under the digest
            raise InputError(f"{uri}: changed while it was read; run again when nobody writes to it")
        inputs.append({"uri": uri, "digest": digest, "rows": rows, "format": file.format.name})


def check_floor(pool: Pool, unscorable: Mapping[str, int], floor: float) -> None:
    """Raises TooManyBadRows where fewer than `floor` of the rows read are good; `unscorable` counts rows by why they have no score."""
    bad = Counter(pool.quarantine(["reason"])["reason"].to_pylist())
    bad.update(unscorable)
    read = pool.summary["good"] + pool.summary["quarantined"]
    good = read - sum(bad.values())
    if good < floor * read:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in bad.most_common(5))
        raise TooManyBadRows(
            f"{good:,} of {read:,} rows are good, which is under the floor of {floor:.0%}: {reasons}. "
            f"Each bad row is in {storage.join(pool.uri, 'quarantine.parquet')}; mend the pool or lower min_good_fraction."
        )


# ---- score and embed, a shard at a time


@lru_cache(maxsize=1)
def _component(stage: str, spec: str) -> Any:
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
    _component.cache_clear()


@task(name="score-shard", **CACHED)
def score_shard(key: str, title: str, shard: Mapping[str, Any], family: Mapping[str, str], pool: str, scorer: Spec) -> dict[str, Any]:
    """Score every pair of a shard's conversations and write them as one part."""
    component = _component("scorer", json.dumps(scorer, sort_keys=True))

    def compute(conversations: Sequence[Conversation]) -> pa.Table:
        counts = [len(conversation.pairs) for conversation in conversations]
        return score_table([conversation.id for conversation in conversations], counts, *component.measure_rows(conversations))

    return _compute_part(Shard(**shard), Family(**family), pool, compute)


@task(name="embed-shard", **CACHED)
def embed_shard(key: str, title: str, shard: Mapping[str, Any], family: Mapping[str, str], pool: str, embedder: Spec) -> dict[str, Any]:
    """Embed a shard's conversations and write the vectors as one part."""
    component = _component("embedder", json.dumps(embedder, sort_keys=True))

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
    held = pool.index(["id"])["id"].combine_chunks()
    positions = first_positions(held)
    return Work(len(positions), *stage.family.plan(options.store, held.take(pa.array(positions)), positions, options.shard_rows))


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


def call(task: Task[..., Any], options: Advanced, there: bool, *arguments: Any) -> dict[str, Any]:
    """Call a task whose artifact is `there`, or is not and has to be made whatever Prefect remembers."""
    bound: Any = bind(task, options).with_options(refresh_cache=not there)
    result: dict[str, Any] = bound(*arguments)
    return result


def bind(task: Task[..., Any], options: Advanced) -> Task[..., Any]:
    """`task` with the run's retries, and with its remembered results in the run's own store."""
    results = StoreResults(uri=storage.join(options.store, "results"))
    results.save(f"deita-{storage.digest_of(results.uri)}", overwrite=True)  # Prefect takes a block only once it knows it
    return task.with_options(retries=options.retries, retry_delay_seconds=exponential_backoff(backoff_factor=2), result_storage=results)


# ---- a look at the models before they work


@task(name="preflight", task_run_name="preflight", retry_condition_fn=worth_retrying, persist_result=False, result_serializer="json")
def preflight(pool: str, wanted: Sequence[tuple[str, str, Spec, int]]) -> list[dict[str, Any]]:
    """Look at the components of `wanted`, (stage, kind of component, its spec, rows to compute), on the first rows of a pool.

    Says in the log what it sees. Raises what will not get better by trying again: an unfit model is found before the first hour's work
    and not after it. Anything else is left to the stage, which tries again.
    """
    logger = get_run_logger()
    opened = Pool.open(pool)
    sample = [row for _, row in opened.read(range(min(SAMPLE_ROWS, opened.summary["good"])))]
    found = []
    for stage, kind, spec, rows in reversed(wanted):  # the first stage's model, loaded last, stays for it
        try:
            seen = check(stage, _component(kind, json.dumps(spec, sort_keys=True)), sample, rows)
        except (UsageError, InputError, ModelError):
            raise
        except Exception as error:
            logger.warning("%s: the preflight came to nothing, and the stage will try again: %s", stage, error)
            continue
        logger.info("%s", seen)
        for warning in seen.warnings:
            logger.warning("%s", warning)
        found.append(asdict(seen))
    return found[::-1]


def look_ahead(stages: Sequence[Stage], pool: Pool, options: Advanced) -> dict[str, Work]:
    """What each stage has to do; where that is anything, its component is looked at first."""
    work = {stage.name: plan_stage(stage, pool, options) for stage in stages}
    wanted = [(one.name, *one.component.copy().popitem(), work[one.name].to_compute) for one in stages if work[one.name].missing]
    if wanted:
        bound: Any = bind(preflight, options)
        bound(pool.uri, wanted)
    return work


# ---- select


@task(name="select-rows", task_run_name="select", **CACHED)
def select_rows(key: str, pool: str, parts: Mapping[str, Any], selector: Mapping[str, Any]) -> dict[str, Any]:
    """Choose, and write the ledger under `key`; returns its selection.json. `parts`: by stage, its family and part digests."""
    return write_selection(key, Pool.open(pool), parts, selector)


def select(plan: Plan, pool: Pool, work: Mapping[str, Any], options: Advanced) -> dict[str, Any]:
    """The selection that a plan makes of what the stages have computed: made anew only where it is not there."""
    uri = storage.join(options.store, "selections", _selection_digest(plan, pool, work))
    selected = call(select_rows, options, is_selection(uri), uri, pool.uri, parts_of(work), plan.specs["selection"])
    return {**selected, "uri": uri}  # what is remembered may come from where the store was once mounted


def _selection_digest(plan: Plan, pool: Pool, work: Mapping[str, Any]) -> str:
    """Names all that a selection depends on."""
    contract = {
        "pool": pool.uri.rsplit("/", 1)[1],
        "stages": {name: done["family"]["fingerprint"] for name, done in work.items()},
        "selector": plan.selector.fingerprint(),
        "version": SELECT_VERSION,
    }
    return storage.digest_of(contract)


@task(name="solve-limit", task_run_name="solve", **CACHED)
def solve_limit(key: str, pool: str, parts: Mapping[str, Any], budget: int) -> dict[str, Any]:
    """The limit that yields `budget` rows: {max_similarity, kept, kept_below, candidates}."""
    return find_limit(Pool.open(pool), parts, budget)


def solve(plan: Plan, pool: Pool, work: Mapping[str, Any], budget: int, options: Advanced) -> dict[str, Any]:
    """As `solve_limit`, made anew only where what it follows from has changed: the answer is in what Prefect remembers."""
    return call(solve_limit, options, True, _selection_digest(plan, pool, work), pool.uri, parts_of(work), budget)


def parts_of(work: Mapping[str, Any]) -> Parts:
    """By stage, where its results are."""
    return {name: {"family": done["family"], "parts": done["parts"]} for name, done in work.items()}


def work_facts(work: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """What a manifest says of the stages: rows computed and rows taken from the store, by stage."""
    return {what: {name: done[what] for name, done in work.items()} for what in ("computed", "reused")}


# ---- export


@task(name="export-selection", task_run_name="export", result_serializer="json")
def export_selection(
    pool: str, work: Mapping[str, Any], selection: Mapping[str, Any], output: str, output_format: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the subset with its ledger, manifest and report to the output folder, whole or not at all; returns the manifest."""
    return write_output(Pool.open(pool), parts_of(work), selection, output, output_format, facts)


@task(name="compare-selections", task_run_name="sweep", result_serializer="json")
def compare_selections(
    pool: str, work: Mapping[str, Any], grid: Mapping[str, Any], output: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Make and measure every selection of a grid, and write them to the output folder, whole or not at all; returns the manifest."""
    return write_sweep(Pool.open(pool), parts_of(work), grid, output, facts)
