"""The ledger, on pools small enough to be written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deita_tasks.artifacts.decisions import DECISIONS, SCHEMA, build_ledger
from deita_tasks.records import Rejection, SelectorResult

A, B, C, D, E = (letter * 32 for letter in "abcde")


def pool(*rows: tuple[str, str, int]) -> pa.Table:
    ids, uris, numbers = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "source_uri": pa.array(uris, pa.string()),
            "source_row": pa.array(numbers, pa.int64()),
        }
    )


def bad(*rows: tuple[str, int, str, str | None]) -> pa.Table:
    uris, numbers, reasons, details = zip(*rows, strict=True) if rows else ((), (), (), ())
    texts = {"source_uri": uris, "reason": reasons, "detail": details}
    table = pa.table({name: pa.array(values, pa.string()) for name, values in texts.items()})
    return table.append_column("source_row", pa.array(numbers, pa.int64()))


def scored(
    *rows: tuple[str, list[float] | None, list[float] | None, float | None, bool, str | None],
) -> pa.Table:
    names = ("id", "complexity", "quality", "evol_score", "truncated", "problem")
    lists = pa.list_(pa.float32())
    schema = pa.schema(
        list(
            zip(
                names,
                (pa.string(), lists, lists, pa.float64(), pa.bool_(), pa.string()),
                strict=True,
            )
        )
    )
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=schema)


def simple(*scores: tuple[str, float | None]) -> pa.Table:
    return scored(
        *(
            (
                id_,
                None if score is None else [score],
                None if score is None else [1.0],
                score,
                False,
                None,
            )
            for id_, score in scores
        )
    )


def test_a_pool_with_every_decision() -> None:
    """C is nearest to A, D is never reached, E has a turn without a score; A and E stand twice; two
    rows are bad.
    """
    rows = pool(
        (C, "p1", 1),
        (A, "p1", 2),
        (E, "p1", 4),
        (A, "p1", 5),
        (D, "p2", 1),
        (B, "p2", 2),
        (E, "p2", 3),
    )
    quarantine = bad(("p1", 3, "no_user_turn", "only assistant turns"), ("p2", 4, "nul_byte", ""))
    scores = scored(
        (E, None, None, None, True, "turn 2: no digit has any probability"),
        (D, [1.0], [1.0], 1.0, False, None),
        (B, [3.0, 1.0], [3.0, 1.0], 10.0, False, None),
        (C, [2.0], [4.0], 8.0, False, None),
        (A, [5.0], [4.0], 20.0, True, None),
    )
    selection = SelectorResult(
        [A, B],
        [
            Rejection(C, "too_similar", A, 0.9375),
            Rejection(D, "below_budget"),
            Rejection(E, "unscorable"),
        ],
    )
    table, counts = build_ledger(rows, quarantine, scores, selection)
    assert table.schema == SCHEMA
    assert counts == {
        "read": 9,
        "selected": 2,
        "too_similar": 1,
        "below_budget": 1,
        "duplicate": 2,
        "quarantined": 2,
        "unscorable": 1,
    }
    got = table.select(
        [
            "source_uri",
            "source_row",
            "id",
            "decision",
            "rank",
            "evol_score",
            "nearest_id",
            "similarity",
            "duplicate_of",
        ]
    )
    assert [tuple(row.values()) for row in got.to_pylist()] == [
        ("p1", 1, C, "too_similar", 3, 8.0, A, 0.9375, None),
        ("p1", 2, A, "selected", 1, 20.0, None, None, None),
        ("p1", 3, None, "quarantined", None, None, None, None, None),
        ("p1", 4, E, "unscorable", None, None, None, None, None),
        ("p1", 5, A, "duplicate", None, 20.0, None, None, A),
        ("p2", 1, D, "below_budget", 4, 1.0, None, None, None),
        ("p2", 2, B, "selected", 2, 10.0, None, None, None),
        ("p2", 3, E, "duplicate", None, None, None, None, E),
        ("p2", 4, None, "quarantined", None, None, None, None, None),
    ]
    assert table["reason"].to_pylist() == [
        None,
        None,
        "no_user_turn: only assistant turns",
        "turn 2: no digit has any probability",
        "the same text as row 2 of p1",
        None,
        None,
        "the same text as row 4 of p1",
        "nul_byte",
    ]
    assert table["complexity"].to_pylist() == [
        [2.0],
        [5.0],
        None,
        None,
        [5.0],
        [1.0],
        [3.0, 1.0],
        None,
        None,
    ]
    assert table["quality"].to_pylist() == [
        [4.0],
        [4.0],
        None,
        None,
        [4.0],
        [1.0],
        [3.0, 1.0],
        None,
        None,
    ]
    assert table["truncated"].to_pylist() == [
        False,
        True,
        None,
        True,
        True,
        False,
        False,
        True,
        None,
    ]


def test_rows_come_by_uri_and_row_and_the_first_read_is_the_row() -> None:
    """The files were given as z, then a: the copy in a is the later one, though it stands first."""
    rows = pool((A, "z", 1), (B, "z", 2), (A, "a", 2), (C, "a", 10))
    quarantine = bad(("m", 1, "malformed_row", None), ("a", 9, "malformed_row", "not JSON"))
    table, _ = build_ledger(
        rows, quarantine, simple((A, 3), (B, 2), (C, 1)), SelectorResult([A, B, C], [])
    )
    assert [
        (row["source_uri"], row["source_row"], row["decision"], row["reason"])
        for row in table.to_pylist()
    ] == [
        ("a", 2, "duplicate", "the same text as row 1 of z"),
        ("a", 9, "quarantined", "malformed_row: not JSON"),
        ("a", 10, "selected", None),
        ("m", 1, "quarantined", "malformed_row"),
        ("z", 1, "selected", None),
        ("z", 2, "selected", None),
    ]


def test_a_duplicate_names_the_place_of_the_first_row_of_its_text() -> None:
    rows = pool((A, "p", 10), (A, "p", 20), (B, "p", 30), (C, "p", 40), (B, "p", 50), (C, "p", 60))
    table, _ = build_ledger(
        rows, bad(), simple((A, 3), (B, 2), (C, 1)), SelectorResult([A, B, C], [])
    )
    repeats = [
        None,
        "the same text as row 10 of p",
        None,
        None,
        "the same text as row 30 of p",
        "the same text as row 40 of p",
    ]
    assert table["reason"].to_pylist() == repeats
    assert table["duplicate_of"].to_pylist() == [None, A, None, None, B, C]


def test_ranks_break_ties_by_id_and_leave_no_holes() -> None:
    rows = pool((E, "p", 1), (D, "p", 2), (C, "p", 3), (B, "p", 4), (A, "p", 5))
    scores = simple((A, 1.0), (B, 5.0), (C, None), (D, 5.0), (E, float("nan")))
    selection = SelectorResult(
        [D],
        [
            Rejection(B, "below_budget"),
            Rejection(A, "below_budget"),
            Rejection(C, "unscorable"),
            Rejection(E, "unscorable"),
        ],
    )
    table, _ = build_ledger(rows, bad(), scores, selection)
    assert dict(zip(table["id"].to_pylist(), table["rank"].to_pylist(), strict=True)) == {
        B: 1,
        D: 2,
        A: 3,
        C: None,
        E: None,
    }
    assert table["evol_score"].to_pylist() == [None, 5.0, None, 5.0, 1.0], "NaN is no score"


def test_a_row_with_a_score_but_no_vector_says_so() -> None:
    table, counts = build_ledger(
        pool((A, "p", 1), (B, "p", 2)),
        bad(),
        simple((A, 2), (B, None)),
        SelectorResult([], [Rejection(A, "unscorable"), Rejection(B, "unscorable")]),
    )
    assert table["reason"].to_pylist() == [
        "its vector is missing, zero or not finite",
        "it has no evol score",
    ]
    assert counts["unscorable"] == 2


def test_a_row_with_a_problem_need_not_be_in_the_selection() -> None:
    scores = scored((A, None, None, None, False, "no tokens"), (B, [1.0], [1.0], 1.0, False, None))
    table, counts = build_ledger(
        pool((A, "p", 1), (B, "p", 2)), bad(), scores, SelectorResult([B], [])
    )
    assert (counts["unscorable"], counts["selected"]) == (1, 1)
    assert table["reason"].to_pylist() == ["no tokens", None]


def test_an_empty_pool_and_one_of_bad_rows_only() -> None:
    table, counts = build_ledger(pool(), bad(), scored(), SelectorResult([], []))
    assert table.num_rows == 0
    assert counts == dict.fromkeys(("read", *DECISIONS), 0)
    table, counts = build_ledger(
        pool(), bad(("p", 1, "too_long", "9 MB")), scored(), SelectorResult([], [])
    )
    assert table["reason"].to_pylist() == ["too_long: 9 MB"]
    assert (counts["read"], counts["quarantined"]) == (1, 1)


@pytest.mark.parametrize(
    ("selection", "complaint"),
    [
        (SelectorResult([A], []), f"1 ids have neither a decision nor a problem, the first {B}"),
        (
            SelectorResult([A, B], [Rejection(B, "below_budget")]),
            f"1 ids are decided more than once, the first {B}",
        ),
        (SelectorResult([A, A, B], []), f"1 ids are decided more than once, the first {A}"),
        (SelectorResult([A, B, D], []), f"1 selected ids are not in the pool, the first {D}"),
        (
            SelectorResult([A, B], [Rejection(D, "below_budget")]),
            f"1 rejected ids are not in the pool, the first {D}",
        ),
        (
            SelectorResult([A], [Rejection(B, "too_similar", D, 0.9)]),
            f"1 ids that blocked a row are not in the pool, the first {D}",
        ),
        (
            SelectorResult([], [Rejection(B, "too_similar", A, 0.9), Rejection(A, "below_budget")]),
            f"1 ids blocked a row but are not kept, the first {A}",
        ),
    ],
)
def test_a_selection_that_does_not_fit_the_pool_is_refused(
    selection: SelectorResult, complaint: str
) -> None:
    with pytest.raises(ValueError, match="the ledger does not add up") as caught:
        build_ledger(pool((A, "p", 1), (B, "p", 2)), bad(), simple((A, 2), (B, 1)), selection)
    assert complaint in str(caught.value)


def test_ids_without_scores_and_selected_ids_without_evol_score_are_refused() -> None:
    with pytest.raises(ValueError, match=f"1 rows of the pool have no scores, the first {B}"):
        build_ledger(
            pool((A, "p", 1), (B, "p", 2)), bad(), simple((A, 2)), SelectorResult([A, B], [])
        )
    with pytest.raises(
        ValueError, match=f"1 ids are selected without an evol score, the first {A}"
    ):
        build_ledger(pool((A, "p", 1)), bad(), simple((A, None)), SelectorResult([A], []))


class OnDemand(Sequence[Rejection]):
    """Rejections of a large pool, each made when it is asked for."""

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        return Rejection(self.ids[index], "below_budget")


def test_a_large_pool_in_chunks_adds_up_and_ranks_as_numpy_does() -> None:
    rng = np.random.default_rng(5)
    ids = [f"{number:032x}" for number in rng.permutation(150_000)]
    evol_scores = rng.integers(0, 1000, len(ids)).astype(np.float64)  # many ties
    order = sorted(range(len(ids)), key=lambda i: (-evol_scores[i], ids[i]))
    rows = pool(*((id_, f"file_{i % 3}", i) for i, id_ in enumerate([*ids, *ids[:500]])))
    ones = pa.array([[1.0]] * len(ids), pa.list_(pa.float32()))
    scores = pa.table(
        {"id": ids, "complexity": ones, "quality": ones, "evol_score": evol_scores}
    ).append_column("truncated", pa.array([False] * len(ids)))
    scores = scores.append_column("problem", pa.nulls(len(ids), pa.string()))
    selection = SelectorResult(
        [ids[i] for i in order[:1000]], OnDemand([ids[i] for i in order[1000:]])
    )
    table, counts = build_ledger(
        rows, bad(("file_0", 10**6, "malformed_row", "x")), scores, selection
    )
    assert counts == {
        "read": 150_501,
        "selected": 1000,
        "too_similar": 0,
        "below_budget": 149_000,
        "duplicate": 500,
        "quarantined": 1,
        "unscorable": 0,
    }
    found = {
        row["id"]: row["rank"]
        for row in table.select(["id", "rank"]).to_pylist()
        if row["rank"] is not None
    }
    assert found == {ids[i]: rank for rank, i in enumerate(order, 1)}
    places = list(
        zip(table["source_uri"].to_pylist(), table["source_row"].to_pylist(), strict=True)
    )
    assert places == sorted(places)
