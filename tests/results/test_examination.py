"""What an examination finds in a small pool with a hand-made ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from deita_tasks.artifacts import pool_writer
from deita_tasks.artifacts.ledger import SCHEMA
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.findings import MediaRows, OtherLanguages
from deita_tasks.results.examination import Examination, examine

GERMAN = "Wie halte ich Basilikum im Winter in der Wohnung am Leben?"
ENGLISH = "How do I keep basil alive indoors during the winter?"


def row(number: int, text: str, *more: Turn, **extra: Any) -> Conversation:
    turns = (Turn("user", f"{text} {number}"), Turn("assistant", text), *more)
    return Conversation(turns, SourceRow("pool.jsonl", number), extra)


ROWS = [
    row(1, ENGLISH, kind="a", id=1),
    row(2, ENGLISH, Turn("user", "And then?"), kind="a", id=2),
    row(3, ENGLISH, images=["x.png"], kind="b", id=3),
    row(4, ENGLISH, images=["y.png"], kind="b", id=4),
    row(5, GERMAN, kind="b", id=5),
    row(1, ENGLISH, kind="b", id=6),  # the same conversation as the first
    row(5, GERMAN, id=5, kind="b"),  # the same in every column
    row(5, GERMAN, id=5),  # without a kind
]


def ledger(*decisions: tuple[int, str, int | None]) -> pa.Table:
    """Rows of ROWS with their decision and the row that blocked them."""
    lines = [
        {
            "id": ROWS[number].id,
            "decision": decision,
            "nearest_id": None if nearest is None else ROWS[nearest].id,
        }
        for number, decision, nearest in decisions
    ]
    return pa.Table.from_pylist(lines, schema=SCHEMA)


LEDGER = ledger(
    (0, "selected", None),
    (1, "below_budget", None),
    (2, "selected", None),
    (3, "too_similar", 2),
    (4, "too_similar", 0),
    (5, "duplicate", None),
    (6, "duplicate", None),
    (7, "duplicate", None),
)


@pytest.fixture
def examination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examination:
    monkeypatch.setattr(pool_writer, "GROUP_ROWS", 2)  # duplicates lie in another row group
    write_pool(str(tmp_path / "pool"), iter(ROWS), [])
    truncated = pa.array([ROWS[number].id for number in (0, 4, 3)], pa.string())
    made_for = {"quality": ["en"], "complexity": ["en"], "embedding": ["de", "en"]}
    return examine(Pool.open(str(tmp_path / "pool")), LEDGER, truncated, made_for)


def test_everything_is_counted(examination: Examination) -> None:
    findings = examination.findings
    assert findings.rows == 5
    assert (findings.unanswered_exchanges, findings.unanswered_rows) == (1, 1)
    assert findings.media == MediaRows(pool=2, selected=1, too_similar=1)
    assert findings.half_read_pairs == 1  # of the other, only one text was cut
    assert findings.other_languages == [
        OtherLanguages(
            stages=["quality", "complexity"], made_for=["en"], pool={"de": 1}, selected={}
        )
    ]


def test_duplicates_that_differ_in_other_columns_are_counted(examination: Examination) -> None:
    assert examination.findings.differing_duplicates == 2
    assert examination.findings.differing_columns == ["kind", "id"]


def test_the_sentences_say_it(examination: Examination) -> None:
    sentences = examination.findings.sentences({"too_similar": 2, "duplicate": 3})
    assert sentences == [
        "1 exchange without an answer in 1 conversation was not scored.",
        "Images, audio or video are in 2 conversations of the pool and 1 of the selection. No "
        "model here reads them: scores and similarities rest on the text alone.",
        "1 of the 2 rows rejected as too similar and the rows that blocked them have media, which "
        "may differ.",
        "3 duplicates, 2 of them with other values than the first row in other columns (kind, id).",
        "1 of the 2 too similar pairs was compared by their beginnings alone: both texts are "
        "longer than the embedder's window.",
        "1 of 5 conversations (20.0%) and 0 of those selected are in languages other than English, "
        "which the models of quality and complexity were made for: German 1.",
    ]


def test_columns_are_counted_over_distinct_rows(examination: Examination) -> None:
    columns = {column.name: column.values for column in examination.columns}
    assert columns["kind"] == [("b", 3, 1), ("a", 2, 1)]
    assert columns["language (detected)"] == [("English", 4, 2), ("German", 1, 0)]
    assert columns["source file"] == [("pool.jsonl", 5, 2)]
    assert "id" not in columns


def test_a_selection_without_findings_says_nothing(tmp_path: Path) -> None:
    write_pool(str(tmp_path / "pool"), iter(ROWS[:1]), [])
    found = examine(Pool.open(str(tmp_path / "pool")), LEDGER[:1], pa.array([], pa.string()), {})
    assert found.findings.sentences({"too_similar": 0, "duplicate": 0}) == []
    assert found.findings.vanished == []


def test_a_shared_document_with_another_answer_is_counted(tmp_path: Path) -> None:
    document = "The harbour was old and the boats were many. " * 30

    def about(start: str, answer: str, number: int) -> Conversation:
        turns = (Turn("user", f"{start}{document} Question {number}?"), Turn("assistant", answer))
        return Conversation(turns, SourceRow("pool.jsonl", number))

    first = about("", "Seven.", 1)
    others = [
        about("", "In the year of the storm.", 2),  # counted
        about("", "Seven.", 3),  # the same answer
        about("Read. ", "Nobody knows.", 4),  # another beginning
    ]
    write_pool(str(tmp_path / "pool"), iter([first, *others]), [])
    decisions = [{"id": first.id, "decision": "selected"}]
    decisions += [
        {"id": other.id, "decision": "too_similar", "nearest_id": first.id} for other in others
    ]
    table = pa.Table.from_pylist(decisions, schema=SCHEMA)
    nothing = pa.array([], pa.string())
    findings = examine(Pool.open(str(tmp_path / "pool")), table, nothing, {}).findings
    assert findings.shared_beginnings == 1
    (sentence,) = findings.sentences({"too_similar": 3})
    assert sentence.startswith("1 of the 3 too similar rows: a long beginning")
