"""What a selection still needs of a pool that is evaluated lazily, and its outcome.

    evaluation = Evaluation(pool, strategy, part_sets, plan)
    evaluation.add("quality", digests)              # what the store has, or a round has computed
    while work := evaluation.next_work(): ...       # compute work.rows of work.stage, and add them
    evaluation.outcome()

The outcome depends on the pool and the strategy alone. What else the store may have, of other runs
or of a round that was killed, neither changes the selection nor shows in its scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import NonNegativeInt

from deita_tasks.artifacts.candidates import StagesParts, open_candidates, with_problems
from deita_tasks.artifacts.ledger import rejection_table
from deita_tasks.artifacts.parts import PartSet, StageParts
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_strata import strata_of
from deita_tasks.artifacts.scores import (
    EMBEDDING,
    ComputedValues,
    PoolScores,
    assemble_scores,
    partial_scores,
    turns_of,
    value_columns,
)
from deita_tasks.artifacts.token_budget import TokenBudget
from deita_tasks.errors import ComputeError, StorageError
from deita_tasks.records import SCORE_KINDS, SelectorResult
from deita_tasks.selecting.arrays import Doubles, Indices, Mask
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.bounds import HIGHEST, LOWEST, Order, Reach, bound_scores
from deita_tasks.selecting.evol import TurnAggregation
from deita_tasks.selecting.rejections import BELOW_BUDGET, REASONS, STRATUM_FULL, Rejections
from deita_tasks.selecting.sampling import POOL_SAMPLE, smallest_ids
from deita_tasks.selecting.strata import Places, Strata
from deita_tasks.strict_json import JsonRecord

# A round computes at least so many rows, or a share of the pool: rows that are not certain to be
# needed, the likeliest first, fill it up.
MIN_ROUND_ROWS = 256
ROUND_SHARE = 1 / 200

NEW_ROWS = 200  # scored in any case, to compare the new rows of a pool with the others

Visible = Mapping[str, Mask]  # by stage: rows whose values may be looked at, bool (n,)


class LazyPlan(JsonRecord):
    """How a pool is evaluated lazily.

    stages: those that compute only what the selection needs, scores in the order in which to
    compute them; the others are complete. sample: rows that every stage computes whatever the
    selection needs, so that reports know the pool; by their number among the distinct rows.
    """

    stages: list[str]
    sample: list[NonNegativeInt]


class Work(NamedTuple):
    """What to compute next: a stage, and rows by their number among the distinct rows."""

    stage: str
    rows: Indices


class Outcome(NamedTuple):
    """A finished selection: a decision for every row, and SCORES that show what it needed.

    strata: of the rows of `scores`, None for none; a code of -1 is for a row without a stratum.
    """

    result: SelectorResult
    scores: PoolScores
    strata: Strata | None


class Evaluation:
    """The state of a lazy evaluation over the n distinct rows of a pool.

    part_sets: of the stages that run. round_share: of the pool, computed in a round at least.
    """

    def __init__(
        self,
        pool: Pool,
        strategy: Selector,
        part_sets: Mapping[str, PartSet],
        plan: LazyPlan,
        round_share: float = ROUND_SHARE,
        token_budget: TokenBudget | None = None,
    ) -> None:
        self.ids, _ = pool.distinct
        self.values = {
            stage: ComputedValues(stage, pool, part_set.row_key)
            for stage, part_set in part_sets.items()
        }
        self._pool = pool
        self._strategy = strategy
        self._token_budget = token_budget
        self._row_budget = strategy.budget  # where the selection so far ends
        self._part_sets = part_sets
        self._digests: dict[str, list[str]] = {stage: [] for stage in part_sets}
        self._lazy_stages = plan.stages
        self._sample = np.array(plan.sample, np.int64)
        self._least_rows = max(MIN_ROUND_ROWS, int(len(self.ids) * round_share))
        self._turns = turns_of(pool)
        self._order = Order(self.ids)
        self._strata = strata_of(pool, strategy)
        self._kinds = _order_kinds(strategy, plan.stages)
        self._upper = self._bound(np.arange(len(self.ids)), self._visible_in_order())
        self._considered = np.zeros(0, np.int64)
        self._result = SelectorResult([], [])
        self._flaws: dict[str, str] = {}  # why a vector cannot be compared, by id
        self._reach = self._reach_of([])

    @property
    def stage_parts(self) -> dict[str, StageParts]:
        """Where the values are that were added, by stage."""
        return {
            stage: StageParts(part_set=part_set, digests=self._digests[stage])
            for stage, part_set in self._part_sets.items()
        }

    def add(self, stage: str, digests: Sequence[str]) -> None:
        """Take in parts of a stage, by their digests; rows of other pools are passed over.

        Raises ComputeError for a score outside the range that bounds rest on, and StorageError for
        a damaged part.
        """
        parts = StageParts(part_set=self._part_sets[stage], digests=list(digests))
        self._digests[stage] += parts.digests
        added = []
        for table in parts.tables(value_columns(stage)):
            if stage in SCORE_KINDS:
                _check_range(stage, table)
            added.append(self.values[stage].add(table))
        if stage in SCORE_KINDS and added:
            rows = np.unique(np.concatenate(added))
            self._upper[rows] = self._bound(rows, self._visible_in_order())

    def next_work(self) -> Work | None:
        """Return what to compute next; None when the selection is certain.

        Every row that it names is needed, but for those that fill up a round.
        """
        for stage in self._lazy_stages:
            missing = self._missing(stage, self._sample)
            if len(missing):
                return Work(stage, missing)
        self._select_considered()
        is_reached = self._reach.reaches(self._upper)
        doubtful = np.flatnonzero(is_reached & ~self._is_considered())
        if not len(doubtful):
            return None
        required, spare = self._required_from(doubtful)
        return self._work_on_scores(required, spare) or self._work_on_vectors(required)

    def rows_in_doubt(self) -> int:
        """Return how many rows are not computed and may be selected, as far as it can be told.

        A few more may come in where others turn out to be too similar.
        """
        return int(np.count_nonzero(self._in_doubt()))

    def values_in_doubt(self) -> int:
        """Return how many values the rows in doubt lack, over the stages that are lazy."""
        in_doubt = self._in_doubt()
        missing = [in_doubt & ~self.values[stage].is_computed for stage in self._lazy_stages]
        return int(np.count_nonzero(missing))

    def _in_doubt(self) -> Mask:
        """Return which rows are not considered but may be selected: bool (n,).

        An estimate where the budget is full without them: it leaves out rows whose upper bound lies
        below the worst of that many scores, although other rows may turn out to be too similar.
        """
        in_doubt = self._reach.reaches(self._upper) & ~self._is_considered()
        scores = self._upper[self._is_scored()]
        budget = self._row_budget
        if len(scores) >= budget and self._strata is None:
            place = len(scores) - budget
            least = np.partition(scores, place)[place]
            in_doubt &= self._upper >= least
        return in_doubt

    def outcome(self) -> Outcome:
        """Return the selection. Raises StorageError if something that it needs is not computed."""
        work = self.next_work()
        if work is not None:
            raise StorageError(
                f"{len(work.rows)} rows have no {work.stage} yet; run again: they will be computed"
            )
        visible = self._visible_at_end()
        scores = self._scores(np.arange(len(self.ids)), visible)
        if EMBEDDING in visible:
            is_needed = np.logical_and.reduce([visible[stage] for stage in self.values])
            needed_ids = self.ids.filter(pa.array(is_needed))
            needed = set(needed_ids.to_pylist())
            flaws = {id: flaw for id, flaw in self._flaws.items() if id in needed}
            scores = scores._replace(table=with_problems(scores.table, flaws))
        result = self._final_result()
        has_full_stratum = self._have_full_stratum(result.kept)
        result = _decide_all(result, self.ids, scores.table, has_full_stratum)
        return Outcome(result, scores, self._strata)

    # ---- what is needed

    def _required_from(self, doubtful: Indices) -> tuple[Indices, Indices]:
        """Return the rows that the selection will reach for certain, and the likeliest ones next.

        What was kept before the first doubtful row stays kept. Of the rows from there on, as many
        as there is room for will be reached, since no other row can come before them.
        """
        first_rows = self._order.first(doubtful, self._upper, 1)
        first = int(first_rows[0])
        is_settled = self._order.up_to(self._upper, first, float(self._upper[first]))
        is_settled[first] = False
        kept = self._kept_rows()
        kept = kept[is_settled[kept]]
        rows = np.flatnonzero(~is_settled & ~np.isnan(self._upper))
        budget = self._certain_rows(kept)
        least = self._least_rows
        if self._strata is None:
            rows = self._order.first(rows, self._upper, budget + least)
            return rows[:budget], rows[budget : budget + least]
        rows = self._order.first(rows, self._upper, len(rows))
        places = self._places_after(kept)
        codes = self._strata.codes[rows]
        is_required = places.admit(codes)
        is_spare = ~is_required & ~places.full()[codes]
        return rows[is_required][:budget], rows[is_spare][:least]

    def _places_after(self, kept: Indices) -> Places:
        """Return the places left by the rows that are kept, in this order."""
        assert self._strata is not None
        places = Places(self._strata, self._strategy.budget)
        places.take(self._strata.codes[kept])
        return places

    def _have_full_stratum(self, kept: Sequence[str]) -> Mask:
        """Return which rows have a stratum that is full for a reason of its own: bool (n,).

        kept: the ids of the selection, which a budget in tokens may have ended.
        """
        if self._strata is None:
            return np.zeros(len(self.ids), np.bool_)
        kept_rows = _positions(pa.array(kept, pa.string()), self.ids)
        places = self._places_after(kept_rows)
        full: Mask = places.full_before_budget()
        return full[self._strata.codes]

    def _certain_rows(self, kept: Indices) -> int:
        """Return how many rows the selection will reach for certain after the rows `kept`."""
        rows = self._strategy.budget - len(kept)
        if self._token_budget is None:
            return rows
        ids = self.ids.take(pa.array(kept)).to_pylist()
        used = int(self._token_budget.tokens_of(ids).sum())
        left = self._token_budget.limit - used
        return min(rows, max(0, left) // self._token_budget.most_a_row + 1)

    def _work_on_scores(self, required: Indices, spare: Indices) -> Work | None:
        """Return the score that most of the `required` rows lack, or None if they have all.

        `spare` rows fill up the round.
        """
        missing = {kind: self._missing_score(kind, required) for kind in self._kinds}
        if not any(map(len, missing.values())):
            return None
        stage = max(missing, key=lambda kind: len(missing[kind]))
        rows = missing[stage]
        room = max(0, self._least_rows - len(rows))
        more = self._missing_score(stage, spare)[:room]
        return Work(stage, np.concatenate([rows, more]))

    def _work_on_vectors(self, required: Indices) -> Work:
        """Return which of the `required` rows lack a vector."""
        return Work(EMBEDDING, self._missing(EMBEDDING, required))

    def _missing(self, stage: str, rows: Indices) -> Indices:
        """Return the `rows` that lack a value of the stage."""
        return rows[~self.values[stage].is_computed[rows]]

    def _missing_score(self, kind: str, rows: Indices) -> Indices:
        """Return the `rows` that lack this score, and none of those that come before it."""
        for earlier in self._kinds[: self._kinds.index(kind)]:
            rows = rows[self.values[earlier].is_computed[rows]]
        return self._missing(kind, rows)

    # ---- the selection of the rows that are computed

    def _is_scored(self) -> Mask:
        """Return which rows have all their scores: bool (n,)."""
        scored = ~np.isnan(self._upper)
        for kind in self._kinds:
            scored &= self.values[kind].is_computed
        return scored

    def _is_considered(self) -> Mask:
        """Return which rows have all that the strategy looks at: bool (n,)."""
        considered = self._is_scored()
        if EMBEDDING in self.values:
            considered &= self.values[EMBEDDING].is_computed
        return considered

    def _select_considered(self) -> None:
        """Select from the rows that can be considered, unless they are those of the last time."""
        considered = np.flatnonzero(self._is_considered())
        if np.array_equal(considered, self._considered):
            return
        scores = self._scores(considered, self._all_visible())
        with open_candidates(self._pool, scores.table, self.stage_parts) as candidates:
            strata = candidates.strata(self._strategy, self._strata)
            self._result = candidates.select(self._strategy, strata)
            self._flaws = _added_problems(scores.table, candidates.all_scores)
        self._considered = considered
        kept = self._result.kept
        self._row_budget = self._strategy.budget
        if self._token_budget is not None:
            fitting = self._token_budget.rows_within(kept)
            if fitting < len(kept):
                self._row_budget = fitting + 1  # with the row that does not fit
        self._reach = self._reach_of(kept[: self._row_budget])

    def _final_result(self) -> SelectorResult:
        """Return the selection; ends it where the budget in tokens does."""
        if self._token_budget is None or self._row_budget > len(self._result.kept):
            return self._result
        scores = self._scores(self._considered, self._all_visible())
        with open_candidates(self._pool, scores.table, self.stage_parts) as candidates:
            strata = candidates.strata(self._strategy, self._strata)
            return self._token_budget.select(candidates, self._strategy, strata)

    def _kept_rows(self) -> Indices:
        """Return the number of each kept row, in order."""
        kept = pa.array(self._result.kept, pa.string())
        return _positions(kept, self.ids)

    def _reach_of(self, kept: Sequence[str]) -> Reach:
        """Return how far a selection that kept these rows has looked."""
        rows = self._kept_rows()[: len(kept)]
        return Reach(self._order, self._upper, rows, self._row_budget, self._strata)

    # ---- what is visible of the values

    def _all_visible(self) -> dict[str, Mask]:
        """Return everything that is computed."""
        return {stage: values.is_computed for stage, values in self.values.items()}

    def _visible_in_order(self) -> Visible:
        """Return which scores bounds may rest on: one whose earlier kinds are computed too.

        So the work does not depend on what another run has computed in another order.
        """
        visible = self._all_visible()
        pairs = zip(self._kinds, self._kinds[1:], strict=False)
        for earlier, later in pairs:
            visible[later] = visible[later] & visible[earlier]
        return visible

    def _visible_at_end(self) -> Visible:
        """Return what the finished selection needed of each stage, with the sample."""
        visible = self._all_visible()
        is_sampled = np.zeros(len(self.ids), np.bool_)
        is_sampled[self._sample] = True
        every_row = np.arange(len(self.ids))
        for stage in self._lazy_stages:
            visible[stage] = visible[stage] & is_sampled
        for stage in [*self._kinds, EMBEDDING]:
            if stage in self._lazy_stages:
                upper = self._bound(every_row, visible)
                is_required = self._reach.reaches(upper)
                is_required &= self.values[stage].is_computed
                visible[stage] = visible[stage] | is_required
        return visible

    def _bound(self, rows: Indices, visible: Visible) -> Doubles:
        """Return the upper bounds of the scores that rank some rows.

        NaN for a row that is known to lack any score: it is no candidate.
        """
        complexity, quality = (
            partial_scores(self.values[kind].take(rows, visible[kind][rows]))
            for kind in SCORE_KINDS
        )
        strategy = self._strategy
        turns = self._turns[rows]
        upper = bound_scores(
            strategy.ranking, strategy.evol_score, complexity, quality, turns, HIGHEST
        )
        has_none = complexity.has_none | quality.has_none
        return np.where(has_none, np.nan, upper)

    def _scores(self, rows: Indices, visible: Visible) -> PoolScores:
        """Return SCORES of some rows, in their order.

        A value that is computed but not visible counts as not computed.
        """
        tables = {
            stage: values.take(rows, visible[stage][rows]) for stage, values in self.values.items()
        }
        ids = self.ids.take(pa.array(rows))
        return assemble_scores(ids, self._turns[rows], tables, self._strategy.evol_score)


def _check_range(stage: str, table: pa.Table) -> None:
    """Raise ComputeError for a score outside the range that bounds rest on."""
    scores = pc.list_flatten(table["values"])
    extremes = pc.min_max(scores).as_py()
    if len(scores) and not LOWEST <= extremes["min"] <= extremes["max"] <= HIGHEST:
        raise ComputeError(
            f"{stage}: scores from {extremes['min']:g} to {extremes['max']:g}, where lazy "
            f"evaluation needs scores from {LOWEST:g} to {HIGHEST:g}; set evaluation to all"
        )


def sample_rows(ids: pa.Array) -> list[int]:
    """Return the numbers of a random sample of `ids`, ascending: the same ids for any order.

    It has POOL_SAMPLE rows, or all if there are fewer.
    """
    return sorted(smallest_ids(ids, POOL_SAMPLE).tolist())


def scores_of_rows(
    pool: Pool, stage_parts: StagesParts, rows: Sequence[int], aggregation: TurnAggregation
) -> pa.Table:
    """Return the SCORES of some rows, in their order; null for what is not computed.

    rows: numbers among the distinct rows of `pool`.
    """
    ids, _ = pool.distinct
    numbers = np.array(rows, np.int64)
    tables: dict[str, pa.Table] = {}
    for stage in SCORE_KINDS:
        values = ComputedValues.read(stage, pool, stage_parts[stage])
        tables[stage] = values.take(numbers)
    some_ids = ids.take(pa.array(numbers))
    scores = assemble_scores(some_ids, turns_of(pool)[numbers], tables, aggregation).table
    column = scores.schema.get_field_index("evol_score")
    evol_scores = pa.array(scores["evol_score"].to_numpy(), from_pandas=True)
    return scores.set_column(column, "evol_score", evol_scores)


def new_sample(ids: pa.Array, earlier: pa.Array | pa.ChunkedArray) -> list[int]:
    """Return the numbers of a random sample of those `ids` that are not among `earlier` ones.

    Ascending, at most NEW_ROWS; the same ids for any order.
    """
    is_earlier = pc.is_in(ids, value_set=earlier)
    new = np.flatnonzero(~is_earlier.to_numpy(zero_copy_only=False))
    rows = new[smallest_ids(ids.take(pa.array(new)), NEW_ROWS)]
    return sorted(rows.tolist())


def _order_kinds(strategy: Selector, lazy_stages: Sequence[str]) -> list[str]:
    """Return the scores that are computed lazily, those that the strategy ranks by first.

    Another one cannot change the order; but a row that lacks it is no candidate.
    """
    kinds = [stage for stage in lazy_stages if stage in SCORE_KINDS]
    return sorted(kinds, key=lambda kind: strategy.ranking not in ("evol", kind))


def _added_problems(before: pa.Table, after: pa.Table) -> dict[str, str]:
    """Return the problems that only the second of two tables of SCORES has, by id."""
    was_usable = pc.is_null(before["problem"])
    is_added = pc.and_(was_usable, pc.is_valid(after["problem"]))
    added = after.filter(is_added)
    ids = added["id"].to_pylist()
    problems = added["problem"].to_pylist()
    return dict(zip(ids, problems, strict=True))


def _decide_all(
    result: SelectorResult, ids: pa.Array, scores: pa.Table, has_full_stratum: Mask
) -> SelectorResult:
    """Return `result` with the rows that were not considered: the budget or their stratum was full.

    ids: of all rows, in the order of `scores`. has_full_stratum: bool (n,).
    """
    rejected = rejection_table(result.rejected)
    kept_ids = pa.array(result.kept, pa.string())
    kept = _positions(kept_ids, ids)
    positions = _positions(rejected["id"], ids)
    is_open = pc.is_null(scores["problem"]).to_numpy()
    is_open[kept] = False
    is_open[positions] = False
    others = np.flatnonzero(is_open)
    reasons = np.where(has_full_stratum[others], STRATUM_FULL, BELOW_BUDGET)
    codes = pc.index_in(rejected["reason"], value_set=pa.array(REASONS)).to_numpy()
    nearest = _positions(rejected["nearest_id"], ids)
    similarities = rejected["similarity"].to_numpy()
    rejections = Rejections(
        ids.to_pylist(),
        np.concatenate([positions, others]),
        np.concatenate([codes, reasons]).astype(np.int8),
        np.concatenate([nearest, np.full(len(others), -1)]),
        np.concatenate([similarities, np.full(len(others), np.nan, np.float32)]),
    )
    return SelectorResult(result.kept, rejections)


def _positions(some_ids: pa.Array | pa.ChunkedArray, ids: pa.Array) -> Indices:
    """Return the place of each of `some_ids` among `ids`; -1 for none."""
    places = pc.index_in(some_ids, value_set=ids).fill_null(-1)
    return np.asarray(places.to_numpy(), np.int64)
