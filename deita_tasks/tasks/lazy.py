"""Compute only the scores and vectors that a selection needs, in rounds of shards.

Each round computes one stage for the rows that may still come before the end of the selection; what
they turn out to be narrows down the next round (see `artifacts/evaluation.py`). A round is made of
tasks like any others, cached and retried: `quality round 3 1/4`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial

import numpy as np
import pyarrow as pa

from deita_tasks import storage
from deita_tasks.artifacts.evaluation import (
    ROUND_SHARE,
    Evaluation,
    LazyPlan,
    Work,
    new_sample,
    sample_rows,
)
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.shards import (
    MIN_SHARD_ROWS,
    SHARDS_PER_STAGE,
    PresentParts,
    find_present,
    plan_missing,
)
from deita_tasks.config import Advanced
from deita_tasks.conversations import Conversation
from deita_tasks.embedding.base import Embedder
from deita_tasks.errors import StorageError
from deita_tasks.models.checkpoint import find_checkpoint, weights_bytes
from deita_tasks.models.hardware import free_memory
from deita_tasks.models.token_counter import TokenCounter
from deita_tasks.results.reading import read_earlier_manifest, read_ledger
from deita_tasks.results.records import TaskCounts
from deita_tasks.scoring.base import Scorer
from deita_tasks.selecting.arrays import Indices
from deita_tasks.selecting.base import Selector
from deita_tasks.tasks.clock import Clock
from deita_tasks.tasks.device_slots import devices_of
from deita_tasks.tasks.model_cache import release_models
from deita_tasks.tasks.preflight import read_first_rows
from deita_tasks.tasks.run_progress import RowProgress, shown_progress
from deita_tasks.tasks.runners import ShardRunner
from deita_tasks.tasks.stages import (
    Stage,
    StageResult,
    StageResults,
    by_task_run,
    collect,
    plan_stage,
    run_stage,
    submit_missing,
    submit_present,
    wait_for,
)

log = logging.getLogger(__name__)

# Without room for all models at once, each round loads one: so there are fewer, larger rounds.
LARGE_ROUND_SHARE = 1 / 20


def evaluate_lazily(
    stages: Sequence[Stage],
    pool: Pool,
    strategy: Selector,
    options: Advanced,
    runner: ShardRunner,
    clock: Clock,
    new_rows: Indices,
    check: Callable[[Mapping[str, int]], None],
) -> StageResults:
    """Compute what `strategy` needs of a pool; return the result by stage.

    A stage without a model is complete in one go: it costs nothing. new_rows: rows whose scores are
    computed too, to compare them with the others; by their number among the distinct rows. check:
    what to call once, before any model works, with the rows that the store lacks, by stage.
    """
    plan = plan_lazily(stages, pool)
    shards = {
        stage.name: plan_stage(stage, pool, options)
        for stage in stages
        if stage.name not in plan.stages
    }
    rounds = _Rounds(stages, pool, strategy, plan, options, runner, clock)
    present = rounds.find_present()
    missing = {name: planned.rows_to_compute for name, planned in shards.items()}
    missing |= {name: parts.missing_rows for name, parts in present.items()}
    check_once = cache(partial(check, missing))
    results: dict[str, StageResult] = {}
    for stage in stages:
        if stage.name in shards:
            if shards[stage.name].missing:
                check_once()
            with clock(stage.name):
                results[stage.name] = run_stage(stage, pool, options, shards[stage.name], runner)
    rounds.take_in(results, present)
    rounds.run(new_rows, check_once)
    return {**results, **rounds.results()}


def plan_lazily(stages: Sequence[Stage], pool: Pool) -> LazyPlan:
    """Return which stages compute only what is needed, the cheapest score first.

    The first rows of the pool show how many tokens a model reads for a row.
    """
    with_model = [stage for stage in stages if has_model(stage.component)]
    sample = read_first_rows(pool)
    embeds = [stage.name for stage in with_model if stage.kind == "embedder"]
    scores = [stage for stage in with_model if stage.kind == "scorer"]
    scores.sort(key=lambda stage: _tokens_a_row(stage.component, sample))
    ids, _ = pool.distinct
    return LazyPlan(stages=[*(stage.name for stage in scores), *embeds], sample=sample_rows(ids))


def new_rows(pool: Pool, previous: str | None) -> Indices:
    """Return a sample of the rows that the result `previous` did not have, by their numbers.

    Empty without an earlier result that can be read.
    """
    if previous is None:
        return np.empty(0, np.int64)
    try:
        earlier = read_ledger(previous, read_earlier_manifest(previous).outputs)
    except StorageError:  # the comparison will say so
        return np.empty(0, np.int64)
    ids, _ = pool.distinct
    rows = new_sample(ids, earlier["id"])
    return np.array(rows, np.int64)


def has_model(component: Scorer | Embedder | TokenCounter) -> bool:
    """Return whether a component computes with a model, here or behind a server."""
    return bool(devices_of(component)) or hasattr(component, "base_url")


def _tokens_a_row(
    component: Scorer | Embedder | TokenCounter, sample: Sequence[Conversation]
) -> float:
    """Return what a row costs; infinity where only a server knows."""
    tokens = component.forecast(sample).tokens
    return float("inf") if tokens is None else float(tokens.sum())


class _Rounds:
    """The rounds of one run."""

    def __init__(
        self,
        stages: Sequence[Stage],
        pool: Pool,
        strategy: Selector,
        plan: LazyPlan,
        options: Advanced,
        runner: ShardRunner,
        clock: Clock,
    ) -> None:
        self._stages = {stage.name: stage for stage in stages}
        self._lazy = [stage for stage in stages if stage.name in plan.stages]
        self._pool = pool
        self._options = options
        self._runner = runner
        self._clock = clock
        self._models = len(self._lazy) if all_fit(self._lazy) else 1
        part_sets = {stage.name: stage.part_set for stage in stages}
        share = ROUND_SHARE if self._models > 1 else LARGE_ROUND_SHARE
        self._evaluation = Evaluation(pool, strategy, part_sets, plan, share)
        self._numbers: Counter[str] = Counter()  # rounds so far, by stage
        self._computed: Counter[str] = Counter()
        self._cached: Counter[str] = Counter()
        self._run: Counter[str] = Counter()
        self._store = storage.absolute(options.store)

    def find_present(self) -> dict[str, PresentParts]:
        """Return what the store has of each lazy stage.

        Parts by stage, with the number of rows that have no value in any.
        """
        return {
            stage.name: find_present(stage.part_set, self._evaluation.values[stage.name].keys)
            for stage in self._lazy
        }

    def take_in(
        self, results: Mapping[str, StageResult], present: Mapping[str, PresentParts]
    ) -> None:
        """Take in the stages that are complete, and what the store has of the others."""
        for name, result in results.items():
            self._evaluation.add(name, result.parts.digests)
        for stage in self._lazy:
            shards = present[stage.name].shards
            futures = submit_present(stage, self._pool, self._options, shards)
            self._cached[stage.name] += wait_for(futures)
            self._evaluation.add(stage.name, [str(shard.part) for shard in shards])

    def run(self, new_rows: Indices, check: Callable[[], None]) -> None:
        """Compute round after round until the selection is certain; `check` comes before."""
        ids, _ = self._pool.distinct
        total = len(ids)
        try:
            with shown_progress("evaluation", total, 0, 1 / max(1, len(self._lazy))) as shown:
                for work in self._works(new_rows):
                    check()
                    self._compute(work, shown)
                    shown.settle(self._rows_done())
                shown.settle(total)
        finally:
            release_models()
        self._log_end(total)

    def _works(self, new_rows: Indices) -> Iterator[Work]:
        """Yield the rounds until the selection is certain.

        First come the scores that `new_rows` lack, to compare them with the others. Each later
        round depends on the values of the one before: compute it before asking for the next.
        """
        for stage in self._lazy:
            missing = self._evaluation.values[stage.name].missing_keys(new_rows)
            if stage.kind == "scorer" and len(missing):
                yield Work(stage.name, new_rows)
        while (work := self._evaluation.next_work()) is not None:
            yield work

    def _rows_done(self) -> float:
        """Return the rows that are done; one that still lacks some values is done in part."""
        values = self._evaluation.values_in_doubt()
        return len(self._evaluation.ids) - values / len(self._lazy)

    def _compute(self, work: Work, shown: RowProgress) -> None:
        """Compute one round."""
        stage = self._stages[work.stage]
        values = self._evaluation.values[work.stage]
        keys = values.missing_keys(work.rows)
        if not len(keys):
            return
        self._numbers[stage.name] += 1
        title = f"{stage.name} round {self._numbers[stage.name]}"
        log.info(
            "%s: %s rows; %s of %s rows can still matter",
            title,
            f"{len(keys):,}",
            f"{self._evaluation.rows_in_doubt():,}",
            f"{len(self._evaluation.ids):,}",
        )
        with self._clock(stage.name):
            shards = plan_missing(
                stage.part_set,
                self._store,
                values.keys.take(pa.array(keys)),
                values.positions[keys],
                self._shard_rows(len(keys)),
                values.count_missing,
            )
            futures = submit_missing(
                stage, self._pool, self._options, shards, self._runner, title, self._models
            )
            wait_for(futures, by_task_run(futures, shards), shown)
        done = collect(futures)
        self._run[stage.name] += len(futures)
        self._computed[stage.name] += done.computed
        self._evaluation.add(stage.name, done.digests)

    def _shard_rows(self, rows: int) -> int:
        """Return the rows of a shard: some for each worker, and not more than in other runs."""
        if self._options.shard_rows is not None:
            return self._options.shard_rows
        whole = -(-len(self._evaluation.ids) // SHARDS_PER_STAGE)
        share = -(-rows // self._runner.workers)
        return max(MIN_SHARD_ROWS, min(whole, share))

    def _log_end(self, total: int) -> None:
        """Log for each stage how many rows have a value now, and in how many rounds."""
        for stage in self._lazy:
            log.info(
                "%s: %s of %s rows computed or reused in %d rounds; the others cannot matter",
                stage.name,
                f"{self._available(stage.name):,}",
                f"{total:,}",
                self._numbers[stage.name],
            )

    def _available(self, stage: str) -> int:
        """Return how many rows have a value of a stage, or a reason for none."""
        return int(np.count_nonzero(self._evaluation.values[stage].is_computed))

    def results(self) -> StageResults:
        """Return the results of the lazy stages.

        reused: rows whose value was in the store. skipped: rows without a value, which cannot
        matter.
        """
        results = {}
        parts = self._evaluation.stage_parts
        total = len(self._evaluation.ids)
        for stage in self._lazy:
            name = stage.name
            available = self._available(name)
            results[name] = StageResult(
                parts=parts[name],
                computed=self._computed[name],
                reused=available - self._computed[name],
                tasks=TaskCounts(cached=self._cached[name], run=self._run[name]),
                skipped=total - available,
            )
        return results


def all_fit(stages: Sequence[Stage]) -> bool:
    """Return whether the models of all stages fit their devices together; logs it if not.

    Supposes workers like this machine. A model whose size is not known is taken for small.
    """
    sizes: Counter[str] = Counter()
    for stage in stages:
        for device in devices_of(stage.component):
            model = getattr(stage.component, "model", None)
            if model is not None:
                revision = getattr(stage.component, "revision", None)
                sizes[device] += weights_bytes(find_checkpoint(model, revision)) or 0
    for device, size in sizes.items():
        if size > free_memory(device):
            log.info(
                "%s: the models, %.1f GB, do not fit it together; each round loads its own, so "
                "rounds are fewer and larger",
                device,
                size / 1e9,
            )
            return False
    return True
