"""The ledger: a decision for every input row, with what it follows from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deita_tasks.records import Rejection, RejectionColumns, SelectorResult

Decision = Literal[
    "selected", "too_similar", "below_budget", "duplicate", "quarantined", "unscorable"
]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
SELECTED, TOO_SIMILAR, BELOW_BUDGET, DUPLICATE, QUARANTINED, UNSCORABLE = range(len(DECISIONS))

SCHEMA = pa.schema(
    {
        "id": pa.string(),  # null for a quarantined row
        "source_uri": pa.string(),
        "source_row": pa.int64(),
        "complexity": pa.list_(
            pa.float32()
        ),  # one score a user turn; a duplicate has those of the row that it repeats
        "quality": pa.list_(pa.float32()),
        "evol_score": pa.float64(),
        # 1-based position by (-evol_score, id) among the distinct rows that have an evol score,
        # else null
        "rank": pa.int64(),
        "decision": pa.string(),
        "nearest_id": pa.string(),  # too_similar: the kept row that blocked it
        "similarity": pa.float32(),  # too_similar: to that row
        # duplicate: the id it shares with the first row of the same text
        "duplicate_of": pa.string(),
        # quarantined, unscorable: why; duplicate: where the first row stands
        "reason": pa.string(),
        "truncated": pa.bool_(),  # a model read only a part of it
    }
)


def build_ledger(
    rows: pa.Table, quarantine: pa.Table, scores: pa.Table, selection: SelectorResult
) -> tuple[pa.Table, dict[str, int]]:
    """One row of SCHEMA for every input row, by source URI and row, and the counts {read, selected,
    too_similar, ...}, which add up.

    rows: id, source_uri, source_row of every good row in source order; the first of an id is the
    row, the later ones are duplicates. quarantine: source_uri, source_row, reason, detail of every
    other row. scores: id, complexity, quality (list<float32>, one a turn), evol_score, truncated,
    problem (why it has no score, else null) of every distinct id, in any order. selection: a
    decision for every distinct id that has no problem. Raises ValueError where an id has no scores,
    no decision or more than one, or was selected without an evol score.
    """
    encoded = rows["id"].combine_chunks().dictionary_encode()
    distinct = encoded.dictionary
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    first = np.unique(codes, return_index=True)[1]  # code -> position of its first row
    scores = scores.take(
        _positions(distinct, scores["id"], "rows of the pool have no scores")
    ).combine_chunks()
    verdicts = _verdicts(distinct, scores, selection)
    again = np.ones(len(codes), np.bool_)
    again[first] = False
    good = _good_rows(rows, codes, first, again, scores, verdicts)
    table = _in_source_order(pa.concat_tables([good, _bad_rows(quarantine)]))
    tally = {
        pair["values"]: pair["counts"] for pair in pc.value_counts(table["decision"]).to_pylist()
    }
    return table, {
        "read": table.num_rows,
        **{decision: tally.get(decision, 0) for decision in DECISIONS},
    }


class _Verdicts(NamedTuple):
    """What became of each distinct id: index into DECISIONS, code of the blocking id or -1, the
    similarity to it.
    """

    decisions: NDArray[np.int8]
    nearest: NDArray[np.int64]
    similarity: NDArray[np.float32]


def _verdicts(distinct: pa.Array, scores: pa.Table, selection: SelectorResult) -> _Verdicts:
    """Raises ValueError unless every id is decided exactly once; one with a problem may be left out
    of the selection.
    """
    n = len(distinct)
    verdicts = _Verdicts(
        np.full(n, UNSCORABLE, np.int8), np.full(n, -1, np.int64), np.full(n, np.nan, np.float32)
    )
    kept = _positions(
        pa.array(selection.kept, pa.string()), distinct, "selected ids are not in the pool"
    )
    verdicts.decisions[kept] = SELECTED
    out = _columns(selection.rejected)
    rejected = _positions(out["id"], distinct, "rejected ids are not in the pool")
    verdicts.decisions[rejected] = _positions(
        out["reason"], pa.array(DECISIONS), "reasons are not known"
    )
    blocked = np.flatnonzero(verdicts.decisions[rejected] == TOO_SIMILAR)
    blockers = out["nearest_id"].combine_chunks().take(pa.array(blocked))
    verdicts.nearest[rejected[blocked]] = _positions(
        blockers, distinct, "ids that blocked a row are not in the pool"
    )
    verdicts.similarity[rejected[blocked]] = out["similarity"].to_numpy()[blocked]
    times = np.bincount(np.concatenate([kept, rejected]), minlength=n)
    _complain(distinct, times > 1, "ids are decided more than once")
    problem = scores["problem"].is_valid().to_numpy()
    _complain(distinct, (times == 0) & ~problem, "ids have neither a decision nor a problem")
    _complain(
        distinct,
        (verdicts.decisions == SELECTED) & ~_has_score(scores),
        "ids are selected without an evol score",
    )
    _complain(
        blockers,
        verdicts.decisions[verdicts.nearest[rejected[blocked]]] != SELECTED,
        "ids blocked a row but are not kept",
    )
    return verdicts


def _has_score(scores: pa.Table) -> NDArray[np.bool_]:
    evol_scores = scores["evol_score"].cast(pa.float64()).fill_null(float("nan")).to_numpy()
    return np.asarray(np.isfinite(evol_scores))


def _ranks(distinct: pa.Array, scores: pa.Table) -> NDArray[np.int64]:
    """int64 (n,): 1 for the best (evol score, then id), 0 where there is no score."""
    having = np.flatnonzero(_has_score(scores))
    table = pa.table({"evol_score": scores["evol_score"], "id": distinct}).take(pa.array(having))
    order = pc.sort_indices(
        table, sort_keys=[("evol_score", "descending"), ("id", "ascending")]
    ).to_numpy()
    ranks = np.zeros(len(distinct), np.int64)
    ranks[having[order]] = np.arange(1, len(having) + 1)
    return ranks


def _good_rows(
    rows: pa.Table,
    codes: NDArray[np.int64],
    first: NDArray[np.int64],
    again: NDArray[np.bool_],
    scores: pa.Table,
    verdicts: _Verdicts,
) -> pa.Table:
    of_id = pa.array(codes)
    ids = rows["id"].combine_chunks()
    ranks = _ranks(ids.take(pa.array(first)), scores)[codes]
    decisions = np.where(again, np.int8(DUPLICATE), verdicts.decisions[codes])
    blocked = decisions == TOO_SIMILAR
    nearest = pa.array(first[verdicts.nearest[codes]], mask=~blocked)
    evol_scores = scores["evol_score"].cast(pa.float64()).to_numpy()
    columns = {
        "id": ids,
        "source_uri": rows["source_uri"],
        "source_row": rows["source_row"],
        "complexity": scores["complexity"].take(of_id),
        "quality": scores["quality"].take(of_id),
        "evol_score": pa.array(evol_scores[codes], mask=~_has_score(scores)[codes]),
        "rank": pa.array(ranks, mask=again | (ranks == 0)),
        "decision": pa.array(DECISIONS).take(pa.array(decisions)),
        "nearest_id": ids.take(nearest),
        "similarity": pa.array(verdicts.similarity[codes], mask=~blocked),
        "duplicate_of": pc.if_else(pa.array(again), ids, None),
        "reason": _reasons(rows, scores, codes, first, decisions),
        "truncated": scores["truncated"].take(of_id),
    }
    return pa.table(columns).cast(SCHEMA)


def _reasons(
    rows: pa.Table,
    scores: pa.Table,
    codes: NDArray[np.int64],
    first: NDArray[np.int64],
    decisions: NDArray[np.int8],
) -> pa.Array:
    """Why a row is unscorable, or where the row stands that it repeats; null for all others. Texts
    are made only where they are needed.
    """
    said = np.flatnonzero((decisions == DUPLICATE) | (decisions == UNSCORABLE))
    repeats = pa.array(decisions[said] == DUPLICATE)
    stands = rows.select(["source_uri", "source_row"]).take(pa.array(first[codes[said]]))
    where = pc.binary_join_element_wise(
        "the same text as row",
        stands["source_row"].cast(pa.string()),
        "of",
        stands["source_uri"],
        " ",
    )
    no_vector = pc.if_else(
        pa.array(_has_score(scores)),
        "its vector is missing, zero or not finite",
        "it has no evol score",
    )
    problems = pc.fill_null(
        pc.coalesce(scores["problem"], no_vector).take(pa.array(codes[said])), ""
    )
    texts = pc.if_else(repeats, where, problems)
    place = np.full(len(codes), -1, np.int64)
    place[said] = np.arange(len(said))
    return texts.take(pa.array(place, mask=place < 0))


def _bad_rows(quarantine: pa.Table) -> pa.Table:
    why = pc.binary_join_element_wise(
        quarantine["reason"],
        pc.replace_with_mask(
            quarantine["detail"].combine_chunks(),
            pc.equal(quarantine["detail"].combine_chunks(), ""),
            pa.scalar(None, pa.string()),
        ),
        ": ",
        null_handling="skip",
    )
    given = {
        "source_uri": quarantine["source_uri"],
        "source_row": quarantine["source_row"],
        "decision": pa.array([DECISIONS[QUARANTINED]] * quarantine.num_rows, pa.string()),
        "reason": why,
    }
    columns = [
        given[field.name] if field.name in given else pa.nulls(quarantine.num_rows, field.type)
        for field in SCHEMA
    ]
    return pa.table(columns, names=SCHEMA.names).cast(SCHEMA)


def _in_source_order(table: pa.Table) -> pa.Table:
    """By source URI, then row; rows that are in this order already are not moved."""
    uris = table["source_uri"].combine_chunks().dictionary_encode()
    rank_of_uri = np.argsort(np.argsort(np.array(uris.dictionary.to_pylist(), dtype=object)))
    order = np.lexsort(
        (table["source_row"].to_numpy(), rank_of_uri[uris.indices.to_numpy(zero_copy_only=False)])
    )
    return table.take(pa.array(order)).combine_chunks()


def _positions(
    ids: pa.Array | pa.ChunkedArray, among: pa.Array | pa.ChunkedArray, complaint: str
) -> NDArray[np.int64]:
    """The position of each of `ids` in `among`. Raises ValueError with `complaint` where one is not
    there.
    """
    found = pc.index_in(ids, value_set=among)
    _complain(ids, pc.is_null(found).to_pandas().to_numpy(), complaint)
    return np.asarray(found.to_pandas().to_numpy(), np.int64)


def _complain(ids: pa.Array | pa.ChunkedArray, wrong: NDArray[np.bool_], complaint: str) -> None:
    if wrong.any():
        some = ids.filter(pa.array(wrong)).slice(0, 3).to_pylist()
        raise ValueError(
            f"the ledger does not add up: {int(wrong.sum())} {complaint}, the first "
            f"{', '.join(map(str, some))}"
        )


def _columns(rejected: Sequence[Rejection]) -> pa.Table:
    """id, reason, nearest_id, similarity of every rejection."""
    schema = pa.schema(
        {
            "id": pa.string(),
            "reason": pa.string(),
            "nearest_id": pa.string(),
            "similarity": pa.float32(),
        }
    )
    if isinstance(rejected, RejectionColumns):
        return pa.table(dict(rejected.columns()), schema=schema)
    return pa.table(
        {name: [row[place] for row in rejected] for place, name in enumerate(Rejection._fields)},
        schema=schema,
    )
