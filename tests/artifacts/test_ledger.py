"""The ledger, on pools small enough to be written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deita_tasks.artifacts.ledger import SCHEMA, build_ledger
from deita_tasks.artifacts.scores import SCORES
from deita_tasks.decisions import DECISIONS, ledger_rows
from deita_tasks.manifest import Counts
from deita_tasks.records import Rejection, SelectorResult

A, B, C, D, E = (letter * 32 for letter in "abcde")


ScoreRow = tuple[str, list[float] | None, list[float] | None, float | None, bool, str | None]


def table_of(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema
    )


def good_rows(*rows: tuple[str, str, int]) -> pa.Table:
    columns = {"id": pa.string(), "source_uri": pa.string(), "source_row": pa.int64()}
    return table_of(pa.schema(columns), rows)


def bad_rows(*rows: tuple[str, int, str, str | None]) -> pa.Table:
    columns = {
        "source_uri": pa.string(),
        "source_row": pa.int64(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
    return table_of(pa.schema(columns), rows)


def score_rows(*rows: ScoreRow) -> pa.Table:
    """Score rows that are computed: both bounds are the score."""
    return table_of(SCORES, [(*row[:4], row[3], row[3], *row[4:], None) for row in rows])


def evol_scores(*scores: tuple[str, float | None]) -> pa.Table:
    """Score rows of one turn, its quality 1; None: without any score."""
    rows: list[ScoreRow] = []
    for id, score in scores:
        if score is None:
            rows.append((id, None, None, None, False, None))
        else:
            rows.append((id, [score], [1.0], score, False, None))
    return score_rows(*rows)


def counts_of(**decisions: int) -> Counts:
    none = dict.fromkeys(DECISIONS, 0)
    return Counts(read=sum(decisions.values()), **(none | decisions))


def test_a_pool_with_every_decision() -> None:
    """C is nearest to A, D is never reached, E has a turn without a score.

    A and E appear twice; two rows are bad.
    """
    rows = good_rows(
        (C, "p1", 1),
        (A, "p1", 2),
        (E, "p1", 4),
        (A, "p1", 5),
        (D, "p2", 1),
        (B, "p2", 2),
        (E, "p2", 3),
    )
    quarantine = bad_rows(
        ("p1", 3, "no_user_turn", "only assistant turns"), ("p2", 4, "nul_byte", "")
    )
    scores = score_rows(
        (E, None, None, None, True, "turn 2: no digit has any probability"),
        (D, [1.0], [1.0], 1.0, False, None),
        (B, [3.0, 1.0], [3.0, 1.0], 10.0, False, None),
        (C, [2.0], [4.0], 8.0, False, None),
        (A, [5.0], [4.0], 20.0, True, None),
    )
    rejected = [
        Rejection(C, "too_similar", A, 0.9375),
        Rejection(D, "below_budget"),
        Rejection(E, "unscorable"),
    ]
    table, counts = build_ledger(rows, quarantine, scores, SelectorResult([A, B], rejected))
    assert table.schema == SCHEMA
    assert counts == Counts(
        read=9,
        selected=2,
        too_similar=1,
        below_budget=1,
        duplicate=2,
        quarantined=2,
        unscorable=1,
    )
    ledger = ledger_rows(table)
    assert [(row.place, row.id, row.decision, row.rank, row.evol_score) for row in ledger] == [
        ("p1:1", C, "too_similar", 3, 8.0),
        ("p1:2", A, "selected", 1, 20.0),
        ("p1:3", None, "quarantined", None, None),
        ("p1:4", E, "unscorable", None, None),
        ("p1:5", A, "duplicate", None, 20.0),
        ("p2:1", D, "below_budget", 4, 1.0),
        ("p2:2", B, "selected", 2, 10.0),
        ("p2:3", E, "duplicate", None, None),
        ("p2:4", None, "quarantined", None, None),
    ]
    assert [(row.nearest_id, row.similarity, row.duplicate_of, row.reason) for row in ledger] == [
        (A, 0.9375, None, None),
        (None, None, None, None),
        (None, None, None, "no_user_turn: only assistant turns"),
        (None, None, None, "turn 2: no digit has any probability"),
        (None, None, A, "the same conversation as row 2 of p1"),
        (None, None, None, None),
        (None, None, None, None),
        (None, None, E, "the same conversation as row 4 of p1"),
        (None, None, None, "nul_byte"),
    ]
    assert [(row.complexity, row.quality, row.truncated) for row in ledger] == [
        ([2.0], [4.0], False),
        ([5.0], [4.0], True),
        (None, None, None),
        (None, None, True),
        ([5.0], [4.0], True),
        ([1.0], [1.0], False),
        ([3.0, 1.0], [3.0, 1.0], False),
        (None, None, True),
        (None, None, None),
    ]


def test_rows_come_by_uri_and_row_and_the_first_read_is_the_row() -> None:
    """File z was read before a: the copy in a is the later one, though the ledger has it first."""
    rows = good_rows((A, "z", 1), (B, "z", 2), (A, "a", 2), (C, "a", 10))
    quarantine = bad_rows(("m", 1, "malformed_row", None), ("a", 9, "malformed_row", "not JSON"))
    scores = evol_scores((A, 3), (B, 2), (C, 1))
    table, _ = build_ledger(rows, quarantine, scores, SelectorResult([A, B, C], []))
    assert [(row.place, row.decision, row.reason) for row in ledger_rows(table)] == [
        ("a:2", "duplicate", "the same conversation as row 1 of z"),
        ("a:9", "quarantined", "malformed_row: not JSON"),
        ("a:10", "selected", None),
        ("m:1", "quarantined", "malformed_row"),
        ("z:1", "selected", None),
        ("z:2", "selected", None),
    ]


def test_a_duplicate_names_the_place_of_the_first_row_of_its_text() -> None:
    ids = (A, A, B, C, B, C)
    rows = good_rows(*((id, "p", 10 * number) for number, id in enumerate(ids, 1)))
    scores = evol_scores((A, 3), (B, 2), (C, 1))
    table, _ = build_ledger(rows, bad_rows(), scores, SelectorResult([A, B, C], []))
    assert table["reason"].to_pylist() == [
        None,
        "the same conversation as row 10 of p",
        None,
        None,
        "the same conversation as row 30 of p",
        "the same conversation as row 40 of p",
    ]
    assert table["duplicate_of"].to_pylist() == [None, A, None, None, B, C]


def test_ranks_break_ties_by_id_and_leave_no_holes() -> None:
    rows = good_rows((E, "p", 1), (D, "p", 2), (C, "p", 3), (B, "p", 4), (A, "p", 5))
    scores = evol_scores((A, 1.0), (B, 5.0), (C, None), (D, 5.0), (E, float("nan")))
    rejected = [
        Rejection(B, "below_budget"),
        Rejection(A, "below_budget"),
        Rejection(C, "unscorable"),
        Rejection(E, "unscorable"),
    ]
    table, _ = build_ledger(rows, bad_rows(), scores, SelectorResult([D], rejected))
    ledger = ledger_rows(table)
    assert {row.id: row.rank for row in ledger} == {B: 1, D: 2, A: 3, C: None, E: None}
    assert [row.evol_score for row in ledger] == [None, 5.0, None, 5.0, 1.0], "NaN is no score"


def test_a_rank_is_known_as_long_as_no_row_without_a_score_may_come_before() -> None:
    rows = good_rows((A, "p", 1), (B, "p", 2), (C, "p", 3), (D, "p", 4))
    bounded = (C, None, [2.0], float("nan"), 2.0, 12.0, False, None, None)
    computed = [
        (id, [s], [1.0], s, s, s, False, None, None) for id, s in ((A, 20.0), (B, 12.0), (D, 12.0))
    ]
    scores = table_of(SCORES, [*computed, bounded])
    rejected = [Rejection(id, "below_budget") for id in (B, C, D)]
    table, _ = build_ledger(rows, bad_rows(), scores, SelectorResult([A], rejected))
    ledger = {row.id: row for row in ledger_rows(table)}
    # C is at most 12: B comes before it by its id, D may come after it.
    assert {id: row.rank for id, row in ledger.items()} == {A: 1, B: 2, C: None, D: None}
    assert (ledger[C].evol_score, ledger[C].evol_lower, ledger[C].evol_upper) == (None, 2.0, 12.0)
    assert (ledger[C].complexity, ledger[C].quality) == (None, [2.0])


def test_a_row_with_a_score_but_no_vector_says_so() -> None:
    rows = good_rows((A, "p", 1), (B, "p", 2))
    rejected = [Rejection(A, "unscorable"), Rejection(B, "unscorable")]
    scores = evol_scores((A, 2), (B, None))
    table, counts = build_ledger(rows, bad_rows(), scores, SelectorResult([], rejected))
    assert table["reason"].to_pylist() == [
        "its vector is missing, zero or not finite",
        "it has no evol score",
    ]
    assert counts.unscorable == 2


def test_a_row_with_a_problem_need_not_be_in_the_selection() -> None:
    rows = good_rows((A, "p", 1), (B, "p", 2))
    scores = score_rows(
        (A, None, None, None, False, "no tokens"), (B, [1.0], [1.0], 1.0, False, None)
    )
    table, counts = build_ledger(rows, bad_rows(), scores, SelectorResult([B], []))
    assert (counts.unscorable, counts.selected) == (1, 1)
    assert table["reason"].to_pylist() == ["no tokens", None]


def test_an_empty_pool_and_one_of_bad_rows_only() -> None:
    nothing = SelectorResult([], [])
    table, counts = build_ledger(good_rows(), bad_rows(), score_rows(), nothing)
    assert table.num_rows == 0
    assert counts == counts_of()
    bad = bad_rows(("p", 1, "too_long", "9 MB"))
    table, counts = build_ledger(good_rows(), bad, score_rows(), nothing)
    assert table["reason"].to_pylist() == ["too_long: 9 MB"]
    assert counts == counts_of(quarantined=1)


@pytest.mark.parametrize(
    ("selected", "rejected", "complaint"),
    [
        ([A], [], f"1 ids have neither a decision nor a problem, the first {B}"),
        (
            [A, B],
            [Rejection(B, "below_budget")],
            f"1 ids are decided more than once, the first {B}",
        ),
        ([A, A, B], [], f"1 ids are decided more than once, the first {A}"),
        ([A, B, D], [], f"1 selected ids are not in the pool, the first {D}"),
        (
            [A, B],
            [Rejection(D, "below_budget")],
            f"1 rejected ids are not in the pool, the first {D}",
        ),
        (
            [A],
            [Rejection(B, "too_similar", D, 0.9)],
            f"1 ids that blocked a row are not in the pool, the first {D}",
        ),
        (
            [],
            [Rejection(B, "too_similar", A, 0.9), Rejection(A, "below_budget")],
            f"1 ids blocked a row but are not selected, the first {A}",
        ),
    ],
)
def test_a_selection_that_does_not_fit_the_pool_is_refused(
    selected: list[str], rejected: list[Rejection], complaint: str
) -> None:
    rows = good_rows((A, "p", 1), (B, "p", 2))
    scores = evol_scores((A, 2), (B, 1))
    with pytest.raises(ValueError, match="the ledger does not add up") as caught:
        build_ledger(rows, bad_rows(), scores, SelectorResult(selected, rejected))
    assert complaint in str(caught.value)


def test_ids_without_scores_and_selected_ids_without_evol_score_are_refused() -> None:
    rows = good_rows((A, "p", 1), (B, "p", 2))
    with pytest.raises(ValueError, match=f"1 rows of the pool have no scores, the first {B}"):
        build_ledger(rows, bad_rows(), evol_scores((A, 2)), SelectorResult([A, B], []))
    rows = good_rows((A, "p", 1))
    complaint = f"1 ids are selected without an evol score, the first {A}"
    with pytest.raises(ValueError, match=complaint):
        build_ledger(rows, bad_rows(), evol_scores((A, None)), SelectorResult([A], []))


class LazyRejections(Sequence[Rejection]):
    """Rejections of a large pool, each made when it is read."""

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        return Rejection(self.ids[index], "below_budget")


def test_a_large_pool_in_chunks_adds_up_and_ranks_as_numpy_does() -> None:
    rng = np.random.default_rng(5)
    ids = [f"{number:032x}" for number in rng.permutation(150_000)]
    scores = rng.integers(0, 1000, len(ids)).astype(np.float64)  # many ties
    ranked = sorted(range(len(ids)), key=lambda row: (-scores[row], ids[row]))
    with_repeats = [*ids, *ids[:500]]
    rows = good_rows(*((id, f"file_{row % 3}", row) for row, id in enumerate(with_repeats)))
    ones = pa.array([[1.0]] * len(ids), pa.list_(pa.float32()))
    columns = {
        "id": ids,
        "complexity": ones,
        "quality": ones,
        **dict.fromkeys(("evol_score", "evol_lower", "evol_upper"), scores),
        "truncated": pa.array([False] * len(ids)),
        "problem": pa.nulls(len(ids), pa.string()),
        "scores": pa.nulls(len(ids), SCORES.field("scores").type),
    }
    result = SelectorResult(
        [ids[row] for row in ranked[:1000]],
        LazyRejections([ids[row] for row in ranked[1000:]]),
    )
    bad = bad_rows(("file_0", 10**6, "malformed_row", "x"))
    table, counts = build_ledger(rows, bad, pa.table(columns), result)
    assert counts == counts_of(selected=1000, below_budget=149_000, duplicate=500, quarantined=1)
    ledger = zip(table["id"].to_pylist(), table["rank"].to_pylist(), strict=True)
    ranks = {id: rank for id, rank in ledger if rank is not None}
    assert ranks == {ids[row]: rank for rank, row in enumerate(ranked, 1)}
    uris = table["source_uri"].to_pylist()
    places = list(zip(uris, table["source_row"].to_pylist(), strict=True))
    assert places == sorted(places)
