"""The ledger: a decision for every input row, and what it follows from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deita_tasks.artifacts.scores import NAMED_VALUES
from deita_tasks.decisions import DECISIONS
from deita_tasks.manifest import Counts
from deita_tasks.records import Rejection, RejectionColumns, SelectorResult
from deita_tasks.selecting.arrays import Indices, Mask

(
    SELECTED,
    TOO_SIMILAR,
    BELOW_BUDGET,
    STRATUM_FULL,
    DUPLICATE,
    QUARANTINED,
    UNSCORABLE,
    CONTAMINATED,
    TOO_LONG,
) = range(len(DECISIONS))

Column: TypeAlias = pa.Array | pa.ChunkedArray

SCHEMA = pa.schema(
    {
        "id": pa.string(),  # null for a quarantined row
        "source_uri": pa.string(),
        "source_row": pa.int64(),
        # One score a user turn; a duplicate has those of the row that it repeats.
        "complexity": pa.list_(pa.float32()),
        "quality": pa.list_(pa.float32()),
        # The value of rank_by where that is set. Null for a row whose scores are not all computed:
        # then it lies between the bounds.
        "evol_score": pa.float64(),
        "evol_lower": pa.float64(),
        "evol_upper": pa.float64(),
        # 1-based position by (-evol_score, id) among the distinct rows that have an evol score;
        # null where a row that is not computed may come before.
        "rank": pa.int64(),
        "decision": pa.string(),
        "nearest_id": pa.string(),  # too_similar: the selected row that blocked it
        "similarity": pa.float32(),  # too_similar: to that row
        "duplicate_of": pa.string(),  # duplicate: the id it shares with an earlier row
        # duplicate: where the first row is; stratum_full: its limit; below_budget: why, where the
        # budget in rows was not full; quarantined, unscorable, contaminated, too_long: why
        "reason": pa.string(),
        "truncated": pa.bool_(),  # a model read only a part of it
        "stratum": pa.string(),  # null in a selection without strata
        "scores": NAMED_VALUES,  # other scores by name; null unless rank_by names some
        # Of a row that was cut at a turn: the turns that were left out, and the id of all of it.
        "cut_turns": pa.int32(),
        "whole_id": pa.string(),
    }
)
EVOL_COLUMNS = ("evol_score", "evol_lower", "evol_upper")
# What filters left out; decision: contaminated, too_long, or unscorable.
EXCLUDED = pa.schema({"id": pa.string(), "decision": pa.string(), "reason": pa.string()})
REJECTIONS = pa.schema(
    {
        "id": pa.string(),
        "reason": pa.string(),
        "nearest_id": pa.string(),
        "similarity": pa.float32(),
    }
)


class _Rows(NamedTuple):
    """The good rows of a pool: which of them are the same conversation.

    ids: the c distinct ids, whose index is a conversation's code. codes: int64 (n,), the code of
    each row. first: int64 (c,), the position of the first row of each code. repeats: bool (n,).
    """

    table: pa.Table
    ids: pa.Array
    codes: Indices
    first: Indices
    repeats: Mask


class _Verdicts(NamedTuple):
    """The decision on each of c distinct ids.

    decisions: int8 (c,), index into DECISIONS. nearest: int64 (c,), the code of the id that blocked
    it, or -1. similarity: float32 (c,), to that id, or NaN.
    """

    decisions: NDArray[np.int8]
    nearest: Indices
    similarity: NDArray[np.float32]


class Limits(NamedTuple):
    """What limited a selection beside its similarities.

    strata: the stratum of each row of the scores, null for none. full: why a stratum took no more
    rows, by stratum. below_budget: why each row of the scores is below the budget, if it is; null
    where the budget in rows was full.
    """

    strata: pa.Array
    full: Mapping[str, str]
    below_budget: pa.Array


def build_ledger(
    rows: pa.Table,
    quarantine: pa.Table,
    scores: pa.Table,
    result: SelectorResult,
    excluded: pa.Table | None = None,
    limits: Limits | None = None,
) -> tuple[pa.Table, Counts]:
    """Return the ledger (SCHEMA, by source URI and row) and the number of rows by decision.

    rows: id, source_uri, source_row of every good row in source order, and cut_turns, whole_id if
    rows were cut; a later row of an id is a duplicate of the first. quarantine: source_uri,
    source_row, reason, detail of every bad row.
    scores: SCORES (see scores.py) of every distinct id, in any order. result: a decision for every
    distinct id without a problem. excluded: EXCLUDED, the distinct ids that a filter left out; they
    have neither scores nor a decision of the strategy. limits: by default, the budget alone.

    Raises ValueError for an id without scores, with no decision or more than one, and for an id
    selected without an evol score.
    """
    pool = _index_rows(rows)
    excluded = EXCLUDED.empty_table() if excluded is None else excluded
    if limits is None:
        nothing = pa.nulls(len(scores), pa.string())
        limits = Limits(nothing, {}, nothing)
    scores = pa.concat_tables([scores, _scores_of_excluded(excluded, scores.schema)])
    order = _positions(pool.ids, scores["id"], "rows of the pool have no scores")
    of_excluded = pa.nulls(len(excluded), pa.string())
    strata = pa.concat_arrays([limits.strata, of_excluded])
    below_budget = pa.concat_arrays([limits.below_budget, of_excluded])
    scores = scores.append_column("stratum", strata)
    scores = scores.append_column("below_budget", below_budget).take(order).combine_chunks()
    verdicts = _verdicts(pool.ids, scores, result, excluded)
    good = _good_rows(pool, scores, verdicts, limits)
    ledger = _in_source_order(pa.concat_tables([good, _bad_rows(quarantine)]))
    return ledger, _count(ledger)


def _index_rows(rows: pa.Table) -> _Rows:
    """Return which rows of the pool share an id; codes count the ids as they first appear."""
    encoded = rows["id"].combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    first = np.unique(codes, return_index=True)[1]
    repeats = np.ones(len(codes), np.bool_)
    repeats[first] = False
    return _Rows(rows, encoded.dictionary, codes, first, repeats)


def _count(ledger: pa.Table) -> Counts:
    """Return the rows of each decision, 0 for one that no row has, and of all together."""
    pairs = pc.value_counts(ledger["decision"]).to_pylist()
    counts = {pair["values"]: pair["counts"] for pair in pairs}
    by_decision = {decision: counts.get(decision, 0) for decision in DECISIONS}
    return Counts(read=ledger.num_rows, **by_decision)


def _scores_of_excluded(excluded: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows of SCORES without a score, whose problem is why a filter excluded them."""
    numbers = pa.array(np.full(excluded.num_rows, np.nan))
    columns = {"id": excluded["id"], "problem": excluded["reason"]}
    columns |= dict.fromkeys(EVOL_COLUMNS, numbers)
    for field in schema:
        columns.setdefault(field.name, pa.nulls(excluded.num_rows, field.type))
    return pa.table(columns).select(schema.names).cast(schema)


def _verdicts(
    ids: pa.Array, scores: pa.Table, result: SelectorResult, excluded: pa.Table
) -> _Verdicts:
    """Raise ValueError unless every id is decided exactly once.

    An id with a problem may be left out of the result.
    """
    rejections = rejection_table(result.rejected)
    selected = _positions(
        pa.array(result.kept, pa.string()), ids, "selected ids are not in the pool"
    )
    rejected = _positions(rejections["id"], ids, "rejected ids are not in the pool")
    decisions = np.full(len(ids), UNSCORABLE, np.int8)
    decisions[selected] = SELECTED
    decisions[rejected] = _positions(
        rejections["reason"], pa.array(DECISIONS), "reasons are not known"
    )
    left_out = _positions(excluded["id"], ids, "excluded ids are not in the pool")
    decisions[left_out] = _positions(
        excluded["decision"], pa.array(DECISIONS), "reasons are not known"
    )
    decided = np.concatenate([selected, rejected, left_out])
    _check_decided_once(ids, scores, decisions, decided)

    blocked = np.flatnonzero(decisions[rejected] == TOO_SIMILAR)
    blocker_ids = rejections["nearest_id"].combine_chunks().take(pa.array(blocked))
    blockers = _positions(blocker_ids, ids, "ids that blocked a row are not in the pool")
    _check(blocker_ids, decisions[blockers] == SELECTED, "ids blocked a row but are not selected")
    nearest = np.full(len(ids), -1, np.int64)
    nearest[rejected[blocked]] = blockers
    similarity = np.full(len(ids), np.nan, np.float32)
    similarity[rejected[blocked]] = rejections["similarity"].to_numpy()[blocked]
    return _Verdicts(decisions, nearest, similarity)


def _check_decided_once(
    ids: pa.Array, scores: pa.Table, decisions: NDArray[np.int8], decided: Indices
) -> None:
    """Raise ValueError unless each id is decided once, and each selected one has an evol score.

    decided: int64, the code of every decision. An id with a problem may have none.
    """
    times = np.bincount(decided, minlength=len(ids))
    has_problem = scores["problem"].is_valid().to_numpy()
    is_selected = decisions == SELECTED
    _check(ids, times <= 1, "ids are decided more than once")
    _check(ids, (times > 0) | has_problem, "ids have neither a decision nor a problem")
    _check(ids, ~is_selected | _has_score(scores), "ids are selected without an evol score")


def _has_score(scores: pa.Table) -> Mask:
    """Return which rows have a finite evol score: bool (c,); null counts as none."""
    column = scores["evol_score"].cast(pa.float64())
    evol_scores = column.fill_null(float("nan")).to_numpy()
    return np.asarray(np.isfinite(evol_scores))


def _ranks(ids: pa.Array, scores: pa.Table) -> Indices:
    """Return int64 (c,): 1 for the best by (-evol_score, id).

    0 without an evol score, and where a row without one may come before.
    """
    upper = scores["evol_upper"].to_numpy()
    ranked = np.flatnonzero(np.isfinite(upper))
    table = pa.table({"evol_upper": scores["evol_upper"], "id": ids})
    table = table.take(pa.array(ranked))
    keys = [("evol_upper", "descending"), ("id", "ascending")]
    in_order = ranked[pc.sort_indices(table, sort_keys=keys).to_numpy()]
    is_computed = _has_score(scores)[in_order]
    certain = in_order[np.logical_and.accumulate(is_computed)]
    ranks = np.zeros(len(ids), np.int64)
    ranks[certain] = np.arange(1, len(certain) + 1)
    return ranks


def _good_rows(pool: _Rows, scores: pa.Table, verdicts: _Verdicts, limits: Limits) -> pa.Table:
    """Return SCHEMA for the n rows of the pool, in their order.

    A duplicate has the scores of the row that it repeats, but no rank of its own.
    """
    codes = pool.codes
    row_ids = pool.table["id"].combine_chunks()
    decisions = np.where(pool.repeats, np.int8(DUPLICATE), verdicts.decisions[codes])
    is_blocked = decisions == TOO_SIMILAR
    nearest = pa.array(pool.first[verdicts.nearest[codes]], mask=~is_blocked)
    ranks = _ranks(pool.ids, scores)[codes]
    code_of_row = pa.array(codes)
    columns = {
        "id": row_ids,
        "source_uri": pool.table["source_uri"],
        "source_row": pool.table["source_row"],
        "complexity": scores["complexity"].take(code_of_row),
        "quality": scores["quality"].take(code_of_row),
        **{name: _numbers(scores[name], codes) for name in EVOL_COLUMNS},
        "rank": pa.array(ranks, mask=pool.repeats | (ranks == 0)),
        "decision": pa.array(DECISIONS).take(pa.array(decisions)),
        "nearest_id": row_ids.take(nearest),
        "similarity": pa.array(verdicts.similarity[codes], mask=~is_blocked),
        "duplicate_of": pc.if_else(pa.array(pool.repeats), row_ids, None),
        "reason": pc.coalesce(
            _reasons(pool, scores, decisions),
            _limit_reasons(scores.take(code_of_row), decisions, limits.full),
        ),
        "truncated": scores["truncated"].take(code_of_row),
        "stratum": scores["stratum"].take(code_of_row),
        "scores": scores["scores"].take(code_of_row),
    }
    for name in ("cut_turns", "whole_id"):
        is_cut = name in pool.table.column_names
        columns[name] = pool.table[name] if is_cut else pa.nulls(len(row_ids))
    return pa.table(columns).cast(SCHEMA)


def _numbers(column: pa.ChunkedArray, codes: Indices) -> pa.Array:
    """Return the number of each row; null for NaN."""
    numbers = column.cast(pa.float64()).to_numpy()[codes]
    return pa.array(numbers, mask=~np.isfinite(numbers))


def _reasons(pool: _Rows, scores: pa.Table, decisions: NDArray[np.int8]) -> pa.Array:
    """Return why a row is no candidate, or where the row that it repeats stands; else null.

    Makes texts only for the rows that need one.
    """
    with_reason = (DUPLICATE, UNSCORABLE, CONTAMINATED, TOO_LONG)
    rows = np.flatnonzero(np.isin(decisions, with_reason))
    codes = pool.codes[rows]
    first = pa.array(pool.first[codes])
    originals = pool.table.select(["source_uri", "source_row"]).take(first)
    original_row = originals["source_row"].cast(pa.string())
    same_as = pc.binary_join_element_wise(
        "the same conversation as row", original_row, "of", originals["source_uri"], " "
    )
    no_vector = "its vector is missing, zero or not finite"
    fallback = pc.if_else(pa.array(_has_score(scores)), no_vector, "it has no evol score")
    problems = pc.coalesce(scores["problem"], fallback)
    problems = problems.take(pa.array(codes))
    is_duplicate = pa.array(decisions[rows] == DUPLICATE)
    texts = pc.if_else(is_duplicate, same_as, pc.fill_null(problems, ""))
    text_of_row = np.full(len(decisions), -1, np.int64)
    text_of_row[rows] = np.arange(len(rows))
    return texts.take(pa.array(text_of_row, mask=text_of_row < 0))


def _limit_reasons(
    rows: pa.Table, decisions: NDArray[np.int8], full: Mapping[str, str]
) -> pa.Array:
    """Return why a row's stratum took no more, or why it is below the budget.

    rows: with the columns stratum and below_budget.
    """
    names = pa.array(full.keys(), pa.string())
    texts = pa.array(full.values(), pa.string())
    strata = rows["stratum"].combine_chunks()
    of_stratum = texts.take(pc.index_in(strata, value_set=names))
    below_budget = rows["below_budget"].combine_chunks()
    otherwise = pc.if_else(pa.array(decisions == BELOW_BUDGET), below_budget, None)
    return pc.if_else(pa.array(decisions == STRATUM_FULL), of_stratum, otherwise)


def _bad_rows(quarantine: pa.Table) -> pa.Table:
    """Return SCHEMA for the quarantined rows; all is null but place, decision and reason."""
    detail = quarantine["detail"].combine_chunks()
    is_empty = pc.equal(detail, "")
    detail = pc.replace_with_mask(detail, is_empty, pa.scalar(None, pa.string()))
    columns = {
        "source_uri": quarantine["source_uri"],
        "source_row": quarantine["source_row"],
        "decision": pa.array([DECISIONS[QUARANTINED]] * quarantine.num_rows, pa.string()),
        "reason": pc.binary_join_element_wise(
            quarantine["reason"], detail, ": ", null_handling="skip"
        ),
    }
    for field in SCHEMA:
        nothing = pa.nulls(quarantine.num_rows, field.type)
        columns.setdefault(field.name, nothing)
    return pa.table(columns).select(SCHEMA.names).cast(SCHEMA)


def _in_source_order(table: pa.Table) -> pa.Table:
    """Return the rows by source URI, then row; rows already in this order keep it."""
    uris = table["source_uri"].combine_chunks().dictionary_encode()
    names = np.array(uris.dictionary.to_pylist(), dtype=object)
    rank_of_uri = np.argsort(np.argsort(names))
    uri_ranks = rank_of_uri[uris.indices.to_numpy(zero_copy_only=False)]
    order = np.lexsort((table["source_row"].to_numpy(), uri_ranks))
    return table.take(pa.array(order)).combine_chunks()


def _positions(ids: Column, among: Column, complaint: str) -> Indices:
    """Return the position of each of `ids` in `among`. Raises ValueError for a missing id."""
    positions = pc.index_in(ids, value_set=among)
    _check(ids, pc.is_valid(positions).to_pandas().to_numpy(), complaint)
    return np.asarray(positions.to_pandas().to_numpy(), np.int64)


def _check(ids: Column, is_right: Mask, complaint: str) -> None:
    """Raise ValueError unless all of `ids` are right."""
    if is_right.all():
        return
    wrong = ids.filter(pa.array(~is_right))
    examples = wrong.slice(0, 3).to_pylist()
    some = ", ".join(map(str, examples))
    raise ValueError(f"the ledger does not add up: {len(wrong)} {complaint}, the first {some}")


def rejection_table(rejected: Sequence[Rejection]) -> pa.Table:
    """Return REJECTIONS, one row for every rejection, in their order."""
    if isinstance(rejected, RejectionColumns):
        return pa.table(dict(rejected.columns()), schema=REJECTIONS)
    columns = {
        name: [rejection[place] for rejection in rejected]
        for place, name in enumerate(Rejection._fields)
    }
    return pa.table(columns, schema=REJECTIONS)
