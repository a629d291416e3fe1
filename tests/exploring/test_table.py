"""The table of the explorer on the hand-made pool (`handmade.py`). No flow, no browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deita_tasks.artifacts.part_tables import vector_table
from deita_tasks.artifacts.parts import ids_digest
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.artifacts.selection import DECISIONS_FILE, read_selection, write_selection
from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.errors import UsageError
from deita_tasks.exploring.conversations import render_turns, shorten, take_texts
from deita_tasks.exploring.numbers import mean_of_turns, named_scores, token_counts
from deita_tasks.exploring.opening import ExplorerSource, open_source
from deita_tasks.exploring.similar import find_similar
from deita_tasks.exploring.table import build_table
from deita_tasks.records import ModelOutput
from tests.support.handmade import BAD, INPUTS, A, B, C, D, E, make
from tests.support.outputs import write_diverse_output
from tests.support.small_store import make_pool, make_store

TEXTS = {
    "A": "user:\nA user 0\n\nassistant:\nA assistant 0\n\n"
    "user:\nA user 1\n\nassistant:\nA assistant 1",
    "B": "user:\nB user 0\n\nassistant:\nB assistant 0",
}
SCORES = ("rank", "evol_score", "complexity", "quality")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Limit 0.5: A is selected and blocks B (0.6) and C (1); D and E lack a value."""
    folder = tmp_path_factory.mktemp("table")
    pool, stage_parts = make(folder / "store")
    uri = str(folder / "selection")
    options = {"budget": 5, "max_similarity": 0.5}
    write_selection(uri, pool, stage_parts, {"name": "diverse", "options": options})
    ledger = read_selection(uri).read(DECISIONS_FILE)
    source = ExplorerSource(uri, pool, ledger, vectors=stage_parts["embedding"].part_set)
    table = build_table(source, str(folder))
    lengths = ("turns", "words")
    assert table.numbers == [*SCORES, *lengths, "nearest_similarity"]
    assert table.categories == ["decision", "truncated"], "all rows have one file and language"
    found: list[dict[str, Any]] = table.rows.to_pylist()
    return found


def column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


def test_every_row_of_the_input_has_a_line_with_its_text(rows: list[dict[str, Any]]) -> None:
    ids = [A.id, B.id, None, C.id, C.id, D.id, E.id]
    assert column(rows, "id") == ids
    assert column(rows, "source_row") == [1, 2, 3, 4, 5, 6, 7]
    assert rows[0]["text"] == TEXTS["A"]
    assert rows[1]["text"] == TEXTS["B"]
    assert rows[2]["text"] == BAD.raw
    assert rows[3]["text"] == rows[4]["text"] == "user:\nC user 0\n\nassistant:\nC assistant 0"
    assert rows[2]["reason"] == "no_user_turn: the roles are assistant"


def test_scores_are_means_of_turns_and_unknown_ones_are_null(rows: list[dict[str, Any]]) -> None:
    assert column(rows, "complexity") == [1.5, 3, None, 2, 2, 5, 1]
    assert column(rows, "quality") == [3.5, 3, None, 4, 4, None, 1]
    assert column(rows, "evol_score") == [10, 9, None, 8, 8, None, 1]
    assert column(rows, "rank") == [1, 2, None, 3, None, None, 4]
    assert column(rows, "turns") == [4, 2, None, 2, 2, 2, 2]
    assert column(rows, "words") == [12, 6, None, 6, 6, 6, 6]
    assert column(rows, "truncated") == ["yes", "no", None, "no", "no", "no", "no"]


def test_a_rejected_row_stands_beside_its_blocker(rows: list[dict[str, Any]]) -> None:
    """The others have the selected row that is most like them; E has no vector, A no other row."""
    assert column(rows, "nearest_id") == [None, A.id, None, A.id, A.id, A.id, None]
    similarities = [None, pytest.approx(0.6), None, 1, 1, 0, None]
    assert column(rows, "nearest_similarity") == similarities
    texts = [None, TEXTS["A"], None, TEXTS["A"], TEXTS["A"], TEXTS["A"], None]
    assert column(rows, "nearest_text") == texts
    neighbours = column(rows, "__neighbours")
    assert neighbours[1] == {"ids": [0], "distances": [pytest.approx(0.4)]}
    assert neighbours[0] == {"ids": [], "distances": []}
    assert neighbours[2] is None


def test_the_map_keeps_distances_of_vectors_in_a_plane(rows: list[dict[str, Any]]) -> None:
    """Two components of unit vectors with two numbers turn them: (1, 0), (0.6, 0.8), (0, 1)."""
    places = np.array([[row["__x"], row["__y"]] for row in rows], np.float64)
    assert np.isnan(places[[2, 6]]).all()
    a, b, c, d = places[[0, 1, 3, 5]]
    assert np.linalg.norm(a - b) == pytest.approx(np.sqrt(0.8), rel=1e-6)
    assert np.linalg.norm(a - d) == pytest.approx(np.sqrt(2), rel=1e-6)
    assert c.tolist() == a.tolist()


def test_nothing_is_zero_where_lazy_evaluation_left_it_out() -> None:
    scores = pa.array([[2, 4], None, [], [1]], pa.list_(pa.float32()))
    assert mean_of_turns(scores).to_pylist() == [3, None, None, 1]


def test_named_scores_have_columns_of_their_own() -> None:
    values = pa.array(
        [
            [{"name": "ifd", "values": [0.5, 0.25]}, {"name": "provided:a", "values": [7]}],
            None,
            [{"name": "provided:a", "values": [8]}],
        ],
        pa.list_(pa.struct({"name": pa.string(), "values": pa.list_(pa.float32())})),
    )
    columns = {name: array.to_pylist() for name, array in named_scores(values).items()}
    assert columns == {"ifd": [0.375, None, None], "provided:a": [7, None, 8]}


def test_texts_name_roles_and_keep_what_else_a_turn_has() -> None:
    turn = pa.struct({"role": pa.string(), "content": pa.string(), "fields": pa.string()})
    call = {"role": "assistant", "content": "", "fields": '{"tool_calls": []}'}
    turns = pa.array([[{"role": "user", "content": "Hi"}, call], [], [call]], pa.list_(turn))
    assert render_turns(turns).to_pylist() == [
        'user:\nHi\n\nassistant:\n\n{"tool_calls": []}',
        "",
        'assistant:\n\n{"tool_calls": []}',
    ]
    assert render_turns(turns[2:]).to_pylist() == ['assistant:\n\n{"tool_calls": []}']


def test_a_long_text_says_what_is_left_out() -> None:
    texts = pa.array(["abcd", "äbcde", None])
    assert shorten(texts, 4).to_pylist() == ["abcd", "äbcd\n… and 1 more characters", None]


def test_texts_are_taken_from_any_chunk() -> None:
    texts = pa.chunked_array([["a", "b"], [], ["c"], ["d", "e"]])
    positions = np.array([4, -1, 0, 2, 0, 3])
    assert take_texts(texts, positions).to_pylist() == ["e", None, "a", "c", "a", "d"]
    assert take_texts(texts, np.array([-1])).to_pylist() == [None]


def test_columns_of_the_input_with_few_values_come_last_under_a_free_name(tmp_path: Path) -> None:
    uri = str(tmp_path / "pool")
    topics = ("a", "b", None, "a", "b", "a")
    write_pool(uri, iter([row(number, topic) for number, topic in enumerate(topics)]), INPUTS)
    table = build_table(ExplorerSource(uri, Pool.open(uri)), str(tmp_path))
    assert table.rows.column_names[-2:] == ["topic", "pool_Text"]
    assert table.rows["topic"].to_pylist() == list(topics)
    assert table.categories == ["topic", "pool_Text"]
    assert not table.has("decision") and not table.has("evol_score"), "a pool has no decisions"


def row(number: int, topic: str | None) -> Conversation:
    """A row with a topic, and a column whose name is that of one of ours but for a capital."""
    turns = (Turn("user", f"question {number}"), Turn("assistant", "answer"))
    extra = {"topic": topic, "Text": f"{number % 2}", "number": number}
    return Conversation(turns, SourceRow("pool.jsonl", number + 1), extra)


def test_neighbours_are_the_most_similar_selected_rows(tmp_path: Path) -> None:
    """Compared with all cosines in float64. More selected rows than a row has neighbours."""
    pool, stage_parts = make(tmp_path)
    part_set = stage_parts["embedding"].part_set
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 3)).astype(np.float32)
    ids = [f"{number:032x}" for number in rng.permutation(40)]
    part = vector_table(ids, ModelOutput(vectors, np.zeros(40, np.int32)))
    part_set.write(ids_digest(part["id"]), [part])
    decisions = ["selected" if number % 4 == 0 else "below_budget" for number in range(40)]
    ledger = pa.table({"id": ids, "decision": decisions})
    similar = find_similar(pool, ledger, part_set)
    assert similar is not None and similar.neighbours is not None
    assert similar.ids.to_pylist() == ids
    units = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    cosines = units @ units.T
    for number in range(40):
        others = [other for other in range(0, 40, 4) if other != number]
        best = sorted(others, key=lambda other: -cosines[number, other])[:5]
        assert similar.neighbours.positions[number].tolist() == best
        expected = pytest.approx(cosines[number, best], abs=1e-6)
        assert similar.neighbours.similarities[number] == expected


def test_tokens_are_null_where_nobody_counted_them(tmp_path: Path) -> None:
    _, stage_parts = make(tmp_path)
    quality = stage_parts["quality"].part_set  # lists of numbers too: 3 and 4 of A, none of D
    ids = pa.array([A.id, D.id, None, "f" * 32])
    assert token_counts(quality, ids).to_pylist() == [3, None, None, None]


# ---- what there is to look at


def test_a_result_a_pool_and_a_store_open(tmp_path: Path) -> None:
    output = write_diverse_output(tmp_path / "result", 5)
    of_result = open_source(output)
    assert of_result.ledger is not None and of_result.ledger.num_rows == 7
    assert of_result.vectors is None, "its manifest names no embedder"
    of_pool = open_source(of_result.pool.uri)
    assert (of_pool.ledger, of_pool.pool.uri) == (None, of_result.pool.uri)

    store = str(tmp_path / "store")
    selection = make_store(store)
    of_store = open_source(store)
    assert of_store.uri == selection
    assert of_store.ledger is not None and of_store.ledger.num_rows == 5
    assert of_store.vectors is not None and of_store.vectors.digests()


def test_a_store_without_a_selection_shows_its_only_pool(tmp_path: Path) -> None:
    store = str(tmp_path)
    pool = make_pool(store, 1, 2)
    assert open_source(store).pool.uri == pool.uri
    make_pool(store, 3)
    with pytest.raises(UsageError, match="2 pools and no selection; expected one of the pools"):
        open_source(store)


def test_anything_else_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no result here"):
        open_source(str(tmp_path))
