"""Explanations of the rows of a hand-made result (`handmade.py`). No flow, no server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from deita_tasks import storage
from deita_tasks.artifacts.pool import Pool
from deita_tasks.conversations import Conversation
from deita_tasks.errors import UsageError
from deita_tasks.results.explain import explain, find_text
from deita_tasks.results.versions import move_latest
from deita_tasks.selecting import load_selector
from tests.support.handmade import A, B, C, D, E
from tests.support.outputs import write_diverse_output

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Limit 0.5: A (10) is selected and blocks B (0.6) and C (1); D and E lack a value."""
    return write_diverse_output(tmp_path_factory.mktemp("five"), 5)


def test_a_selected_row_and_the_rows_it_blocked(output: str) -> None:
    explanation = explain(output, A.id)
    row = explanation.row
    assert row.decision == "selected"
    assert (row.rank, row.evol_score, explanation.ranked) == (1, 10, 4)
    assert (row.complexity, row.quality) == ([2, 1], [3, 4])
    assert explanation.conversation is not None
    assert explanation.conversation.turns == A.turns
    assert [(other.row.id, other.conversation.turns) for other in explanation.blocked] == [
        (C.id, C.turns),
        (B.id, B.turns),
    ]
    similarities = [other.row.similarity for other in explanation.blocked]
    assert similarities == [1, pytest.approx(0.6)]
    assert explanation.blocked_rows == 2
    assert explanation.blocker is None


def test_a_limit_on_the_blocked_rows_leaves_their_count(output: str) -> None:
    explanation = explain(output, A.id, limit=1)
    assert [other.row.id for other in explanation.blocked] == [C.id]
    assert explanation.blocked_rows == 2


def test_the_nearest_come_first_by_distance_too(tmp_path: Path) -> None:
    """B is at (1.2, 1.6) and C at (3, 0), A at (1, 0)."""
    output = write_diverse_output(tmp_path, 5, metric="euclidean", min_distance=2.5)
    blocked = explain(output, A.id).blocked
    assert [other.row.id for other in blocked] == [B.id, C.id]
    assert [other.row.similarity for other in blocked] == [pytest.approx(1.6125, abs=1e-4), 2]


def test_a_rejected_row_and_the_row_that_blocked_it(output: str) -> None:
    explanation = explain(output, B.id)
    assert explanation.row.decision == "too_similar"
    assert explanation.row.similarity == pytest.approx(0.6)
    blocker = explanation.blocker
    assert blocker is not None
    assert (blocker.row.id, blocker.row.rank, blocker.conversation.turns) == (A.id, 1, A.turns)
    assert (explanation.blocked, explanation.blocked_rows) == ([], 0)


def test_a_row_that_was_never_reached(tmp_path: Path) -> None:
    explanation = explain(write_diverse_output(tmp_path, 1, max_similarity=0.9), B.id)
    assert explanation.row.decision == "below_budget"
    selector = load_selector("diverse", budget=1, max_similarity=0.9)
    assert explanation.selector == selector.fingerprint()


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [(D, "quality: turn 1: no digit has any probability"), (E, "embedding: out of memory")],
)
def test_a_row_without_a_score_or_a_vector(
    conversation: Conversation, reason: str, output: str
) -> None:
    row = explain(output, conversation.id).row
    assert (row.decision, row.reason) == ("unscorable", reason)


@pytest.mark.parametrize(
    "query", [C.id, C.id[:4], C.id[:9].upper(), "pool.jsonl:4", "pool.jsonl:5"]
)
def test_a_row_by_its_id_the_beginning_of_it_or_its_place(query: str, output: str) -> None:
    """A duplicate is explained as the row that it repeats."""
    explanation = explain(output, query)
    assert (explanation.row.id, explanation.row.source_row) == (C.id, 4)
    assert [duplicate.place for duplicate in explanation.duplicates] == ["pool.jsonl:5"]


def with_own_ids(monkeypatch: pytest.MonkeyPatch, column: str, ids: list[object]) -> None:
    """Let the pool's six good rows have a column with these ids."""
    index = Pool.index

    def with_extra(pool: Pool, columns: list[str]) -> pa.Table:
        table = index(pool, columns)
        if "extra" not in columns:
            return table
        extra = pa.array([json.dumps({column: id}, ensure_ascii=False) for id in ids])
        return table.set_column(columns.index("extra"), "extra", extra)

    monkeypatch.setattr(Pool, "index", with_extra)


def test_a_row_by_an_id_of_its_own(monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    ids = ["m-1", B.id[:4], "7", "pool.jsonl:1", 12, "dialogue-é"]
    with_own_ids(monkeypatch, "Conversation_ID", ids)
    assert explain(output, "m-1").row.id == A.id
    assert explain(output, "7").row.id == C.id
    assert explain(output, "pool.jsonl:1").row.id == C.id  # a duplicate; an exact id goes before
    assert explain(output, "12").row.id == D.id
    assert explain(output, "dialogue-é").row.id == E.id
    assert explain(output, B.id).row.id == B.id
    for part in ("m-", "Conversation_ID", "1"):
        with pytest.raises(UsageError, match=f"'{part}': "):
            explain(output, part)


def test_only_columns_of_ids_count(monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    with_own_ids(monkeypatch, "topic", ["m-1"] * 6)
    with pytest.raises(UsageError, match="at least its first 4"):
        explain(output, "m-1")


def test_an_own_id_of_several_rows(monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    with_own_ids(monkeypatch, "id", ["a", "b", "c", "c", "b", "e"])
    assert explain(output, "c").row.id == C.id  # twice the same conversation
    with pytest.raises(UsageError, match=f"2 conversations have this id .*{B.id}, {D.id}"):
        explain(output, "b")


def test_a_quarantined_row_by_its_place(output: str) -> None:
    explanation = explain(output, "pool.jsonl:3")
    assert explanation.row.decision == "quarantined"
    assert explanation.row.reason == "no_user_turn: the roles are assistant"
    assert (explanation.conversation, explanation.raw) == (None, "{}")


def test_a_store_that_has_moved(tmp_path: Path) -> None:
    output = write_diverse_output(tmp_path, 5)
    shutil.move(tmp_path / "store", tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="--store"):
        explain(output, A.id)
    assert explain(output, A.id, str(tmp_path / "elsewhere")).conversation is not None


def test_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run had its store as a relative path."""
    monkeypatch.chdir(tmp_path)
    write_diverse_output(Path("here"), 5)
    monkeypatch.chdir(ROOT)
    assert explain(str(tmp_path / "here" / "out"), A.id).conversation is not None


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("abc", "at least its first 4 characters"),
        ("zzzz", "no row of"),
        ("pool.jsonl:8", "no conversation in row 8"),
        ("other.jsonl:1", "no such file"),
    ],
)
def test_a_row_that_is_not_there(query: str, problem: str, output: str) -> None:
    with pytest.raises(UsageError, match=problem):
        explain(output, query)


def test_a_folder_without_a_result(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no result here"):
        explain(str(tmp_path / "absent"), A.id)


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        [],
        {"pool": "p", "counts": {"read": 1}},
        {"pool": "p", "counts": {}, "fingerprints": {"selection": []}},  # that of a sweep
    ],
)
def test_a_result_that_is_not_a_selection(manifest: object, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="not that of a selection"):
        explain(str(tmp_path), A.id)


def test_a_beginning_that_several_ids_have(monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    read_table = storage.read_table

    def with_similar_ids(uri: str, *options: object, **more: object) -> pa.Table:
        table = read_table(uri, *options, **more)
        if not uri.endswith("decisions.parquet"):
            return table
        ids = ["abcd1", "abcd2", *table["id"].to_pylist()[2:]]
        return table.set_column(0, "id", pa.array(ids))

    monkeypatch.setattr(storage, "read_table", with_similar_ids)
    with pytest.raises(UsageError, match=r"2 ids begin with this \(abcd1, abcd2\)"):
        explain(output, "abcd")


def test_the_manifest_names_the_pool(output: str) -> None:
    manifest = json.loads((Path(output) / "manifest.json").read_text())
    assert manifest["pool"] == str(Path(output).parent / "store" / "pools" / "p")
    assert manifest["truncated"] == {"complexity": 0, "quality": 1, "embedding": 0}


def test_rows_by_a_piece_of_their_text(output: str) -> None:
    """In any case of letters; a duplicate and a quarantined row are no matches of their own."""
    matches = find_text(output, "c USER 0")
    assert [(match.row.id, match.conversation.turns) for match in matches.rows] == [(C.id, C.turns)]
    assert (matches.total, matches.rows[0].row.source_row) == (1, 4)
    several = find_text(output, "assistant 0", limit=2)
    assert [match.row.id for match in several.rows] == [A.id, B.id]
    assert several.total == 5
    with pytest.raises(UsageError, match=r"'\.\*': no conversation of .* holds this text"):
        find_text(output, ".*")
    with pytest.raises(UsageError, match="expected a piece"):
        find_text(output, " ")


def test_the_folder_of_versions_stands_for_the_latest(output: str, tmp_path: Path) -> None:
    names = ["20260101T000000Z-" + "0" * 16, "20260102T000000Z-" + "1" * 16]
    for name in names:
        shutil.copytree(output, tmp_path / "versions" / name)
    move_latest(str(tmp_path), names[0])
    store = str(Path(output).parent / "store")
    (tmp_path / "versions" / names[1] / "manifest.json").write_text("{}")
    assert explain(str(tmp_path), A.id, store).row.id == A.id
