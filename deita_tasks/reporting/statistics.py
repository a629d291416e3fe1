"""The numbers that the report states about a selection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deita_tasks.decisions import EXCLUDED, NO_PLACE, Decision
from deita_tasks.manifest import Manifest
from deita_tasks.presets import EVERY_ROW
from deita_tasks.reporting.figures import Split
from deita_tasks.selecting.sampling import POOL_SAMPLE, smallest_ids

EVOL_SCORE = "evol score"
DISTRIBUTIONS = (EVOL_SCORE, "complexity", "quality", "words", "user turns")


class Reach(NamedTuple):
    """How far down the ranking a selection went.

    last: the rank of the last selected row, of `ranked` rows. too_similar: the rows rejected on the
    way. unfilled: the budget in rows, if it was not filled although every row was reached.
    """

    last: int
    ranked: int
    too_similar: int
    unfilled: int | None


def distinct_rows(ledger: pa.Table) -> pa.Table:
    """Return the rows that took part: not quarantined, repeated or left out by a filter."""
    others = ["quarantined", "duplicate", *EXCLUDED]
    return ledger.filter(~pc.field("decision").isin(others))


def with_decision(ledger: pa.Table, decision: Decision) -> pa.Table:
    """Return the rows that have this decision."""
    return ledger.filter(pc.field("decision") == decision)


def is_partial(rows: pa.Table, column: str = "evol_score") -> bool:
    """Return whether a score is not computed for some rows that may have one.

    Such a row has a bound of its evol score: a lazy run computes no more where that is enough.
    """
    has_bounds = pc.is_valid(pc.field("evol_upper"))
    not_computed = rows.filter(pc.is_null(pc.field(column)) & has_bounds)
    return bool(not_computed.num_rows)


def pool_sample(ledger: pa.Table, rows: int = POOL_SAMPLE) -> pa.Table:
    """Return at most `rows` of the distinct rows: a random sample, the same for any order.

    Of the first POOL_SAMPLE everything is computed, also where the pool is evaluated lazily.
    """
    distinct = distinct_rows(ledger)
    return distinct.take(smallest_ids(distinct["id"], rows))


def distributions(ledger: pa.Table, shapes: pa.Table) -> dict[str, Split]:
    """Return the values of the pool's distinct rows (or their user turns) and of the selected ones.

    Where a score is not computed for all rows, those of a random sample stand for the pool. shapes:
    id, n_pairs (user turns) and n_words of every good row, in any order. A row without a value is
    left out.
    """
    distinct = distinct_rows(ledger)
    selected = with_decision(distinct, "selected")
    sample = pool_sample(ledger)

    def scores(column: str) -> Split:
        """Return a column of scores, of a sample of the pool if some are not computed.

        A column of lists, with a score for each user turn, gives each turn's score.
        """
        pool = sample if is_partial(distinct, column) else distinct
        values = [rows[column] for rows in (pool, selected)]
        if pa.types.is_list(values[0].type):
            values = [pc.list_flatten(lists) for lists in values]
        return split(*values)

    def split(pool: pa.ChunkedArray, kept: pa.ChunkedArray) -> Split:
        """Return the values of both groups without nulls, so there may be fewer than rows."""
        of_pool = pool.drop_null()
        of_kept = kept.drop_null()
        return Split(of_pool.to_numpy(), of_kept.to_numpy())

    def look_up(rows: pa.Table, column: str) -> pa.ChunkedArray:
        """Return a column of `shapes` for each row, null for a row that is not in it."""
        positions = pc.index_in(rows["id"], value_set=shapes["id"])
        return shapes[column].take(positions)

    splits = {EVOL_SCORE: scores("evol_score")}
    for kind in ("complexity", "quality"):
        splits[kind] = scores(kind)
    splits |= _named_scores(distinct, selected)
    for name, column in (("words", "n_words"), ("user turns", "n_pairs")):
        splits[name] = split(look_up(distinct, column), look_up(selected, column))
    return splits


def _named_scores(distinct: pa.Table, selected: pa.Table) -> dict[str, Split]:
    """Return the values of the other scores that rank_by names, by name."""
    pool, kept = _values_by_name(distinct), _values_by_name(selected)
    return {name: Split(values, kept.get(name, values[:0])) for name, values in pool.items()}


def _values_by_name(rows: pa.Table) -> dict[str, NDArray[Any]]:
    """Return the values of each other score that rank_by names, float32 (n,): n of all turns."""
    scores = pc.list_flatten(rows["scores"]).combine_chunks()
    names, lists = (pc.struct_field(scores, index) for index in (0, 1))
    values = {}
    for name in pc.unique(names).to_pylist():
        of_name = lists.filter(pc.equal(names, name))
        values[name] = pc.list_flatten(of_name).to_numpy(zero_copy_only=False)
    return values


def named_scores(splits: Mapping[str, Split]) -> list[str]:
    """Return which of `distributions` are other scores that rank_by names."""
    return [name for name in splits if name not in DISTRIBUTIONS]


def ranks_by_evol(manifest: Manifest) -> bool:
    """Return whether no expression of scores takes the place of the evol score."""
    return "rank_by" not in _selector_options(manifest)


def ranking_name(manifest: Manifest) -> str:
    """Return what the selection ranks by: an expression of scores, or the evol score."""
    return str(_selector_options(manifest).get("rank_by", EVOL_SCORE))


def summary_table(
    splits: Mapping[str, Split], ranking: str = EVOL_SCORE
) -> list[tuple[str, list[str]]]:
    """Return for each measure the mean and median, of the pool and of the selection.

    As text, a dash where there are no values. ranking: the name to show for the evol score.
    """
    return [
        (
            ranking if name == EVOL_SCORE else name,
            _mean_and_median(split.pool) + _mean_and_median(split.selected),
        )
        for name, split in splits.items()
    ]


def _mean_and_median(numbers: NDArray[Any]) -> list[str]:
    """Return both as text: two decimals below 100, none above, and dashes where there is no number.

    The mean is taken in float64, as float32 loses digits over millions of rows.
    """
    if not len(numbers):
        return ["–", "–"]
    statistics = (numbers.mean(dtype=np.float64), np.median(numbers))
    return [f"{value:,.2f}" if value < 100 else f"{value:,.0f}" for value in statistics]


def selection_reach(ledger: pa.Table, manifest: Manifest) -> Reach | None:
    """Return how far down the ranking the selection went.

    None if it skipped ranks on purpose, or if the ranks are not known.
    """
    distinct = distinct_rows(ledger)
    ranked = distinct.filter(pc.is_valid(pc.field("evol_upper")))
    ranks = with_decision(ranked, "selected")["rank"]
    last = pc.max(ranks).as_py()
    if last is None or ranks.null_count:
        return None
    upper = ranked.filter(pc.field("rank") <= last)
    has_no_place = pc.field("decision").isin(NO_PLACE)
    if upper.filter(has_no_place).num_rows:
        return None
    too_similar = with_decision(upper, "too_similar").num_rows
    budget = _selector_options(manifest).get("budget", EVERY_ROW)
    is_unfilled = len(ranks) < budget < EVERY_ROW and not distinct.filter(has_no_place).num_rows
    return Reach(last, ranked.num_rows, too_similar, budget if is_unfilled else None)


def selection_limit(manifest: Manifest) -> float | None:
    """Return the largest similarity, or the least distance, allowed; None if there is no limit."""
    options = _selector_options(manifest)
    key = "min_distance" if limit_measure(manifest) == "distance" else "max_similarity"
    limit = options.get(key)
    return None if limit is None else float(limit)


def limit_measure(manifest: Manifest) -> str:
    """Return what the limit bounds: similarity or distance."""
    has_distance = _selector_options(manifest).get("min_distance") is not None
    return "distance" if has_distance else "similarity"


def compares_by_cosine(manifest: Manifest) -> bool:
    """Return whether the strategy compares by the cosine similarity that the figures show."""
    return bool(_selector_options(manifest).get("metric", "cosine") == "cosine")


def _selector_options(manifest: Manifest) -> Mapping[str, Any]:
    """Return the options of the strategy; {} where none are recorded."""
    return manifest.fingerprints.get("selection") or {}
