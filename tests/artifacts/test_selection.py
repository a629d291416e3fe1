"""The selection artifact: what follows from hand-made scores and vectors (`handmade.py`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deita_tasks import storage
from deita_tasks.artifacts.ledger import SCHEMA
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.artifacts.selection import (
    SelectionProvenance,
    SelectionSummary,
    SelectorOptions,
    check_size,
    is_selection,
    read_selection,
    shortfall,
    write_selection,
)
from deita_tasks.config import Selection
from deita_tasks.decisions import ledger_rows
from deita_tasks.errors import DamagedArtifact, TooFewRows
from deita_tasks.manifest import Counts
from deita_tasks.presets import Spec
from deita_tasks.strict_json import DIGEST_FIELD, digest_of
from tests.support.handmade import BAD, INPUTS, A, B, C, D, E, make, without_parts

DATA = Path(__file__).parent / "data"  # as the code before typed records wrote it
DIVERSE: Spec = {"name": "diverse", "options": {"budget": 5, "max_similarity": 0.9}}


def select(folder: Path, selector: Spec = DIVERSE) -> SelectionSummary:
    """Select from the hand-made pool; the artifact is in `folder`/selection."""
    pool, stage_parts = make(folder / "store")
    return write_selection(str(folder / "selection"), pool, stage_parts, selector)


def diverse(budget: int, **options: Any) -> Spec:
    return {"name": "diverse", "options": {"budget": budget, **options}}


def kept(folder: Path) -> list[str]:
    ids: list[str] = pq.read_table(folder / "selection" / "kept.parquet")["id"].to_pylist()
    return ids


def decisions(folder: Path) -> list[str]:
    table = pq.read_table(folder / "selection" / "decisions.parquet")
    return [row.decision for row in ledger_rows(table)]


def test_every_row_has_the_decision_that_follows_by_hand(tmp_path: Path) -> None:
    summary = select(tmp_path)
    assert kept(tmp_path) == [A.id, B.id]
    table = pq.read_table(tmp_path / "selection" / "decisions.parquet")
    assert table.schema.equals(SCHEMA)
    rows = ledger_rows(table)
    assert [(row.source_row, row.id, row.decision, row.rank, row.evol_score) for row in rows] == [
        (1, A.id, "selected", 1, 10.0),
        (2, B.id, "selected", 2, 9.0),
        (3, None, "quarantined", None, None),
        (4, C.id, "too_similar", 3, 8.0),
        (5, C.id, "duplicate", None, 8.0),
        (6, D.id, "unscorable", None, None),
        (7, E.id, "unscorable", 4, 1.0),
    ]
    assert (rows[3].nearest_id, rows[3].similarity) == (A.id, 1.0)
    assert rows[5].reason == "quality: turn 1: no digit has any probability"
    assert rows[6].reason == "embedding: out of memory"
    assert (rows[0].complexity, rows[0].quality) == ([2.0, 1.0], [3.0, 4.0])
    assert rows[0].truncated
    assert not any(row.truncated for row in rows[1:])
    assert summary.counts == Counts(
        read=7,
        selected=2,
        too_similar=1,
        below_budget=0,
        duplicate=1,
        quarantined=1,
        unscorable=2,
    )
    assert summary.unscorable == {
        "quality: turn 1: no digit has any probability": 1,
        "embedding: out of memory": 1,
    }
    assert summary.truncated == {"complexity": 0, "quality": 1, "embedding": 0}
    assert read_selection(str(tmp_path / "selection")) == summary


def test_the_device_is_no_part_of_what_is_selected(tmp_path: Path) -> None:
    default = select(tmp_path / "a").provenance
    on_the_cpu = select(tmp_path / "b", diverse(5, max_similarity=0.9, device="cpu")).provenance
    assert default is not None
    assert on_the_cpu == default
    assert default.selector.to_dict() == DIVERSE


def test_a_full_budget_leaves_the_rest_below(tmp_path: Path) -> None:
    select(tmp_path, diverse(1, max_similarity=0.9))
    assert kept(tmp_path) == [A.id]
    assert decisions(tmp_path) == [
        "selected",
        "below_budget",
        "quarantined",
        "below_budget",
        "duplicate",
        "unscorable",
        "unscorable",
    ]


def test_a_similarity_at_the_limit_is_allowed(tmp_path: Path) -> None:
    """B is at 0.6 to A (a 3-4-5 triangle): above 0.5 it goes.

    C, which has A's direction, goes at any limit under 1.
    """
    select(tmp_path / "a", diverse(5, max_similarity=0.5))
    assert kept(tmp_path / "a") == [A.id]
    select(tmp_path / "b", diverse(5, max_similarity=1.0))
    assert kept(tmp_path / "b") == [A.id, B.id, C.id]


def test_without_vectors_only_scores_count(tmp_path: Path) -> None:
    pool, stage_parts = make(tmp_path / "store")
    del stage_parts["embedding"]
    selector: Spec = {"name": "top_score", "options": {"budget": 3}}
    summary = write_selection(str(tmp_path / "selection"), pool, stage_parts, selector)
    assert kept(tmp_path) == [A.id, B.id, C.id]
    assert summary.counts.unscorable == 1  # E has scores
    assert summary.counts.below_budget == 1


@pytest.mark.parametrize("with_vectors", [True, False])
def test_a_pool_of_bad_rows_alone(with_vectors: bool, tmp_path: Path) -> None:
    """min_good_fraction may be 0: nothing is selected then, and every row is in the ledger."""
    write_pool(str(tmp_path / "pool"), iter([BAD]), INPUTS)
    stage_parts = without_parts(make(tmp_path / "store")[1])
    selector = DIVERSE
    if not with_vectors:
        del stage_parts["embedding"]
        selector = {"name": "top_score", "options": {"budget": 3}}
    pool = Pool.open(str(tmp_path / "pool"))
    counts = write_selection(str(tmp_path / "selection"), pool, stage_parts, selector).counts
    assert (counts.read, counts.quarantined) == (1, 1)
    assert kept(tmp_path) == []


def test_rows_that_are_all_unscorable(tmp_path: Path) -> None:
    _, stage_parts = make(tmp_path / "store")
    write_pool(str(tmp_path / "pool"), iter([D]), INPUTS)
    pool = Pool.open(str(tmp_path / "pool"))
    counts = write_selection(str(tmp_path / "selection"), pool, stage_parts, DIVERSE).counts
    assert counts.unscorable == counts.read == 1


# ---- selection.json


def with_later_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The selection.json of earlier code with what came with filters and strata, without any."""
    counts = {**fields["counts"], "contaminated": 0, "too_long": 0, "stratum_full": 0}
    provenance = {**fields["made_of"], "exclusions": [], "references": []}
    return {
        **fields,
        "counts": counts,
        "made_of": provenance,
        "tokens": None,
        "notes": [],
        "strata": [],
    }


def test_the_selection_json_of_earlier_code_is_read(tmp_path: Path) -> None:
    text = (DATA / "selection.json").read_text()
    (tmp_path / "selection.json").write_text(text)
    summary = read_selection(str(tmp_path))
    digest = "939eee178b1f7df8f05cbb873b7c1d2e"
    assert summary.provenance == SelectionProvenance(
        pool="p",
        fingerprints=dict.fromkeys(("complexity", "quality", "embedding"), digest),
        selector=SelectorOptions(name="diverse", options={"budget": 5, "max_similarity": 0.9}),
    )
    assert (summary.counts.read, summary.counts.selected) == (7, 2)
    assert summary.files["kept.parquet"].bytes == 616
    assert summary.uri == str(tmp_path), "where it lies now"
    expected = with_later_fields(json.loads(text))
    assert {**summary.to_dict(), "uri": "store/selections/s"} == expected


def test_selection_json_is_what_it_always_was(tmp_path: Path) -> None:
    """All keys and values; the bytes of Parquet files are those of the installed pyarrow."""
    summary = select(tmp_path)
    written = json.loads((tmp_path / "selection" / "selection.json").read_text())
    assert written.pop(DIGEST_FIELD) == digest_of(written)
    expected = with_later_fields(json.loads((DATA / "selection.json").read_text()))
    expected["uri"] = summary.uri
    for name, fields in expected["files"].items():
        info = storage.describe(f"{summary.uri}/{name}")
        fields.update(bytes=info.bytes, sha256=info.sha256)
    assert written == expected


def test_a_selection_of_an_early_version_has_no_provenance(tmp_path: Path) -> None:
    fields = json.loads((DATA / "selection.json").read_text())
    del fields["made_of"]
    (tmp_path / "selection.json").write_text(json.dumps(fields))
    assert read_selection(str(tmp_path)).provenance is None


# ---- damage


@pytest.mark.parametrize("name", ["decisions.parquet", "kept.parquet", "selection.json"])
@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_damage_is_noticed(name: str, damage: str, tmp_path: Path) -> None:
    select(tmp_path)
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
def test_a_selection_json_that_is_something_else(content: str, tmp_path: Path) -> None:
    select(tmp_path)
    (tmp_path / "selection" / "selection.json").write_text(content)
    assert not is_selection(str(tmp_path / "selection"))
    with pytest.raises(DamagedArtifact, match="not a SelectionSummary"):
        read_selection(str(tmp_path / "selection"))


def test_nothing_is_no_selection(tmp_path: Path) -> None:
    assert not is_selection(str(tmp_path / "absent"))


# ---- a pool that runs out before the budget


def counts_of(
    selected: int, too_similar: int = 0, below_budget: int = 0, stratum_full: int = 0
) -> Counts:
    return Counts(
        read=selected + too_similar + below_budget + stratum_full,
        selected=selected,
        too_similar=too_similar,
        below_budget=below_budget,
        stratum_full=stratum_full,
        duplicate=0,
        quarantined=0,
        unscorable=0,
    )


def test_an_exact_size_is_all_or_an_error(tmp_path: Path) -> None:
    counts = select(tmp_path).counts
    assert counts.selected == 2
    check_size(counts, Selection(budget=5))
    check_size(counts, Selection(budget=2, target_size="exact"))
    message = (
        r"2 of 3 conversations were selected, and every row was reached\."
        r"\n`deita solve --budget 3`"
    )
    with pytest.raises(TooFewRows, match=message):
        check_size(counts, Selection(budget=3, target_size="exact"))


@pytest.mark.parametrize(
    ("options", "counts", "ending"),
    [
        (
            {},
            counts_of(5, too_similar=4),
            "every row was reached.\n`deita solve --budget 9`",
        ),
        ({}, counts_of(5), "every row was reached."),
        (
            {"metric": "dot", "max_similarity": 2},
            counts_of(5, too_similar=4),
            "every row was reached.",
        ),
        (
            {"strata": "source_uri", "per_stratum": 1},
            counts_of(5, stratum_full=4),
            "every row whose stratum had room was reached.",
        ),
        (
            {"strategy": "facility_location"},
            counts_of(5, below_budget=4),
            "every row that was considered was reached.",
        ),
    ],
)
def test_the_message_about_a_pool_that_ran_out(
    options: dict[str, Any], counts: Counts, ending: str
) -> None:
    """`deita solve` knows cosine alone."""
    message = shortfall(counts, Selection(budget=9, **options))
    assert message.startswith(
        f"The pool ran out before the budget: 5 of 9 conversations were selected, and {ending}"
    )
    assert ("deita solve" in message) == ("solve" in ending)
