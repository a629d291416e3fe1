"""The selection artifact: what hand-made scores and vectors make of a hand-made pool
(`handmade.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deita_tasks.artifacts import selection as selections
from deita_tasks.artifacts.decisions import SCHEMA
from deita_tasks.artifacts.pool import Pool, write_pool
from deita_tasks.artifacts.selection import check_size, is_selection, ran_out, write_selection
from deita_tasks.config import Selection
from deita_tasks.errors import StorageError, TooFewRows, UsageError
from tests.support.handmade import BAD, INPUTS, A, B, C, D, E, make

DIVERSE = {"name": "diverse", "options": {"budget": 5, "max_similarity": 0.9}}


def chosen(
    folder: Path, selector: Any = DIVERSE, **stages: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    pool, parts = make(folder / "store")
    summary = write_selection(str(folder / "selection"), pool, {**parts, **stages}, selector)
    return summary, pq.read_table(folder / "selection" / "decisions.parquet").to_pylist()


def kept(folder: Path) -> list[str]:
    ids: list[str] = pq.read_table(folder / "selection" / "kept.parquet")["id"].to_pylist()
    return ids


def test_every_line_has_the_decision_that_follows_by_hand(tmp_path: Path) -> None:
    summary, rows = chosen(tmp_path)
    assert kept(tmp_path) == [A.id, B.id]
    told = [
        (row["source_row"], row["id"], row["decision"], row["rank"], row["evol_score"])
        for row in rows
    ]
    assert told == [
        (1, A.id, "selected", 1, 10.0),
        (2, B.id, "selected", 2, 9.0),
        (3, None, "quarantined", None, None),
        (4, C.id, "too_similar", 3, 8.0),
        (5, C.id, "duplicate", None, 8.0),
        (6, D.id, "unscorable", None, None),
        (7, E.id, "unscorable", 4, 1.0),
    ]
    assert (rows[3]["nearest_id"], rows[3]["similarity"]) == (A.id, 1.0)
    assert rows[5]["reason"] == "quality: turn 1: no digit has any probability"
    assert rows[6]["reason"] == "embedding: out of memory"
    assert (rows[0]["complexity"], rows[0]["quality"]) == ([2.0, 1.0], [3.0, 4.0])
    assert [row["truncated"] for row in rows if row["id"] == A.id] == [True]
    assert not any(row["truncated"] for row in rows[1:])
    assert pq.read_table(tmp_path / "selection" / "decisions.parquet").schema.equals(SCHEMA)
    assert summary["counts"] == {
        "read": 7, "selected": 2, "too_similar": 1, "below_budget": 0, "duplicate": 1, "quarantined": 1, "unscorable": 2,
    }  # fmt: skip
    assert summary["unscorable"] == {
        "quality: turn 1: no digit has any probability": 1,
        "embedding: out of memory": 1,
    }
    assert summary["truncated"] == {"complexity": 0, "quality": 1, "embedding": 0}


def test_vectors_that_do_not_go_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory, _ = chosen(tmp_path / "a")
    monkeypatch.setattr(selections, "IN_MEMORY", 0)
    in_a_file, _ = chosen(tmp_path / "b")
    assert in_memory["files"] == in_a_file["files"]


def test_an_exact_size_is_all_or_an_error(tmp_path: Path) -> None:
    summary, _ = chosen(tmp_path)
    assert summary["counts"]["selected"] == 2
    check_size(summary["counts"], Selection(budget=5))
    check_size(summary["counts"], Selection(budget=2, target_size="exact"))
    with pytest.raises(
        TooFewRows,
        match=r"2 of 3 conversations were kept, and every row was reached\.\n`deita "
        r"solve --budget 3`",
    ):
        check_size(summary["counts"], Selection(budget=3, target_size="exact"))


@pytest.mark.parametrize(
    ("options", "counts", "said"),
    [
        (
            {},
            {"too_similar": 4, "below_budget": 0},
            "every row was reached.\n`deita solve --budget 9`",
        ),
        ({}, {"too_similar": 0, "below_budget": 0}, "every row was reached."),
        (
            {"metric": "dot", "max_similarity": 2},
            {"too_similar": 4, "below_budget": 0},
            "every row was reached.",
        ),
        (
            {"strata": "source_uri", "per_stratum": 1},
            {"too_similar": 0, "below_budget": 4},
            "every row whose stratum had room was reached.",
        ),
        (
            {"strategy": "facility_location"},
            {"too_similar": 0, "below_budget": 4},
            "every row that was considered was reached.",
        ),
    ],
)
def test_what_is_said_where_the_pool_ran_out(
    options: dict[str, Any], counts: dict[str, int], said: str
) -> None:
    """`deita solve` knows cosine alone."""
    told = ran_out({"selected": 5, **counts}, Selection(budget=9, **options))
    assert told.startswith(
        f"The pool ran out before the budget: 5 of 9 conversations were kept, and {said}"
    )
    assert ("deita solve" in told) == ("solve" in said)


def test_the_device_is_no_part_of_what_is_kept(tmp_path: Path) -> None:
    plainly, _ = chosen(tmp_path / "a")
    on_the_cpu, _ = chosen(
        tmp_path / "b", {**DIVERSE, "options": {**DIVERSE["options"], "device": "cpu"}}
    )
    assert on_the_cpu["made_of"] == plainly["made_of"]
    assert plainly["made_of"]["selector"] == DIVERSE


def test_a_full_budget_leaves_the_rest_below(tmp_path: Path) -> None:
    _, rows = chosen(tmp_path, {"name": "diverse", "options": {"budget": 1, "max_similarity": 0.9}})
    assert kept(tmp_path) == [A.id]
    assert [row["decision"] for row in rows] == [
        "selected", "below_budget", "quarantined", "below_budget", "duplicate", "unscorable", "unscorable",
    ]  # fmt: skip


def test_a_similarity_at_the_limit_is_allowed(tmp_path: Path) -> None:
    """B is at 0.6 to A (a 3-4-5 triangle): above 0.5 it goes, and C, which is A's direction, goes
    at any limit under 1.
    """
    chosen(tmp_path / "a", {"name": "diverse", "options": {"budget": 5, "max_similarity": 0.5}})
    assert kept(tmp_path / "a") == [A.id]
    chosen(tmp_path / "b", {"name": "diverse", "options": {"budget": 5, "max_similarity": 1.0}})
    assert kept(tmp_path / "b") == [A.id, B.id, C.id]


def test_without_vectors_only_scores_count(tmp_path: Path) -> None:
    pool, parts = make(tmp_path / "store")
    del parts["embedding"]
    summary = write_selection(
        str(tmp_path / "selection"), pool, parts, {"name": "top_score", "options": {"budget": 3}}
    )
    assert kept(tmp_path) == [A.id, B.id, C.id]
    assert summary["counts"]["unscorable"] == 1  # E has scores
    assert summary["counts"]["below_budget"] == 1


def test_a_row_in_no_part_is_an_error(tmp_path: Path) -> None:
    pool, parts = make(tmp_path / "store")
    parts["quality"]["parts"] = parts["quality"]["parts"][:1]
    with pytest.raises(StorageError, match="3 of 5 rows are in no part; run again"):
        write_selection(str(tmp_path / "selection"), pool, parts, DIVERSE)
    assert not is_selection(str(tmp_path / "selection"))


@pytest.mark.parametrize("with_vectors", [True, False])
def test_a_pool_of_bad_rows_alone(with_vectors: bool, tmp_path: Path) -> None:
    """min_good_fraction may be 0: then nothing is selected, and every row is told of."""
    write_pool(str(tmp_path / "pool"), iter([BAD]), {"inputs": INPUTS})
    _, parts = make(tmp_path / "store")
    nothing = {
        stage: {**held, "parts": []}
        for stage, held in parts.items()
        if with_vectors or stage != "embedding"
    }
    strategy = DIVERSE if with_vectors else {"name": "top_score", "options": {"budget": 3}}
    summary = write_selection(
        str(tmp_path / "selection"), Pool.open(str(tmp_path / "pool")), nothing, strategy
    )
    assert summary["counts"] == {**dict.fromkeys(summary["counts"], 0), "read": 1, "quarantined": 1}
    assert kept(tmp_path) == []


def test_rows_that_are_all_unscorable(tmp_path: Path) -> None:
    _, parts = make(tmp_path / "store")
    write_pool(str(tmp_path / "pool"), iter([D]), {"inputs": INPUTS})
    summary = write_selection(
        str(tmp_path / "selection"), Pool.open(str(tmp_path / "pool")), parts, DIVERSE
    )
    assert summary["counts"]["unscorable"] == summary["counts"]["read"] == 1


# ---- what is not whole is not there


@pytest.mark.parametrize("name", ["decisions.parquet", "kept.parquet", "selection.json"])
@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_damage_is_noticed(name: str, damage: str, tmp_path: Path) -> None:
    chosen(tmp_path)
    assert is_selection(str(tmp_path / "selection"))
    file = tmp_path / "selection" / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20])
    assert not is_selection(str(tmp_path / "selection"))


@pytest.mark.parametrize(
    "content", ["{}", "[]", "null", '{"files": 5}', '{"files": {"kept.parquet": {}}}']
)
def test_a_file_that_says_something_else(content: str, tmp_path: Path) -> None:
    chosen(tmp_path)
    (tmp_path / "selection" / "selection.json").write_text(content)
    assert not is_selection(str(tmp_path / "selection"))


def test_nothing_is_no_selection(tmp_path: Path) -> None:
    assert not is_selection(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (
            {"name": "complexity_only", "options": {"budget": 2}},
            "AB",
        ),  # 2 + 1, 3, 2: the tie goes by id
        ({"name": "quality_only", "options": {"budget": 2}}, "AC"),  # 3 + 4, 3, 4
        ({"name": "top_score", "options": {"budget": 1, "evol_score": "mean"}}, "B"),  # 5, 9, 8
        ({"name": "top_score", "options": {"budget": 1, "evol_score": "max"}}, "B"),  # 6, 9, 8
        ({"name": "length", "options": {"budget": 1}}, "A"),  # four turns of three words
        (
            {
                "name": "top_score",
                "options": {"budget": 3, "strata": "source_uri", "per_stratum": 1},
            },
            "A",
        ),  # one file
        (
            {"name": "top_score", "options": {"budget": 3, "strata": "line", "per_stratum": 1}},
            "ABC",
        ),  # a line each
    ],
)
def test_rankings_and_strata_by_hand(options: dict[str, Any], kept: str, tmp_path: Path) -> None:
    pool, parts = make(tmp_path)
    scores = {stage: held for stage, held in parts.items() if stage != "embedding"}
    summary = write_selection(str(tmp_path / "selection"), pool, scores, options)
    found = pq.read_table(tmp_path / "selection" / "kept.parquet")["id"].to_pylist()
    by_letter = {"A": A.id, "B": B.id, "C": C.id, "D": D.id, "E": E.id}
    assert sorted(found) == sorted(by_letter[letter] for letter in kept)
    assert summary["counts"]["selected"] == len(kept)


def test_strata_by_a_column_that_is_not_there(tmp_path: Path) -> None:
    pool, parts = make(tmp_path)
    options = {"name": "diverse", "options": {"budget": 3, "strata": "topic", "per_stratum": 1}}
    with pytest.raises(
        UsageError, match="'topic': 3 of 3 rows have no such column"
    ):  # of those that a strategy chooses from
        write_selection(str(tmp_path / "selection"), pool, parts, options)
