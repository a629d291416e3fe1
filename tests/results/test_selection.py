"""The output folder, from a hand-made selection of a hand-made pool (`handmade.py`)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from deita_tasks.artifacts.parts import PartSet, score_table
from deita_tasks.artifacts.pool import Pool, write_pool
from deita_tasks.artifacts.selection import write_selection
from deita_tasks.errors import DeitaError, UsageError
from deita_tasks.records import Conversation, SourceRow, Turn
from deita_tasks.results.selection import write_output
from tests.support.handmade import BAD, INPUTS, A, B, C, make, measured

FACTS: dict[str, Any] = {
    "preset": "mini",
    "parameters": {"selection": {"budget": 5}},
    "seed": 0,
    "models": [],
    "fingerprints": {},
    "computed": {"complexity": 5, "quality": 5, "embedding": 5},
    "reused": {"complexity": 0, "quality": 0, "embedding": 0},
    "timings": {"load": 0.1},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pool, Any, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("made")
    pool, parts = make(folder)
    selector = {"name": "diverse", "options": {"budget": 5, "max_similarity": 1.0}}
    return pool, parts, write_selection(str(folder / "selection"), pool, parts, selector)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is seconds of drawing."""
    monkeypatch.setattr(
        "deita_tasks.results.selection.build_report",
        lambda data: SimpleNamespace(html=b"<!doctype html>", figures={}),
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_folder_holds_all_that_is_promised(made: Any, tmp_path: Path) -> None:
    pool, parts, selection = made
    written = write_output(pool, parts, selection, str(tmp_path / "out"), "input", FACTS)
    manifest = written.manifest
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"selected.jsonl", "decisions.parquet", "report.html", "manifest.json"}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == json.loads(
        json.dumps(manifest)
    )
    assert manifest["counts"] == selection["counts"]
    assert written.data.manifest.outputs.keys() == files - {
        "manifest.json"
    }  # what the run's page in the UI names
    assert manifest["inputs"] == INPUTS
    for name in files - {"manifest.json"}:
        assert (
            manifest["outputs"][name]["sha256"]
            == hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
        )
    stored = pq.read_table(Path(selection["uri"]) / "decisions.parquet")
    assert pq.read_table(tmp_path / "out" / "decisions.parquet").equals(stored)


@pytest.mark.usefixtures("no_report")
def test_the_rows_come_in_the_order_chosen_in_the_pools_format(made: Any, tmp_path: Path) -> None:
    pool, parts, selection = made
    write_output(pool, parts, selection, str(tmp_path / "out"), "input", FACTS)
    rows = lines(tmp_path / "out" / "selected.jsonl")
    assert [
        (row["deita_id"], row["deita_evol_score"], row["deita_rank"], row["line"]) for row in rows
    ] == [
        (A.id, 10.0, 1, 1),
        (B.id, 9.0, 2, 2),
        (C.id, 8.0, 3, 4),  # the first of the two
    ]
    assert [turn["value"] for turn in rows[0]["conversations"]] == [
        turn.content for turn in A.turns
    ]


@pytest.mark.parametrize(
    ("output_format", "name"),
    [("messages", "selected.jsonl"), ("parquet", "selected.parquet"), ("hf_dataset", "README.md")],
)
def test_another_format(output_format: str, name: str, made: Any, tmp_path: Path) -> None:
    pool, parts, selection = made
    manifest = write_output(
        pool, parts, selection, str(tmp_path / "out"), output_format, FACTS
    ).manifest
    assert name in manifest["outputs"]
    assert {"decisions.parquet", "report.html"} <= set(manifest["outputs"])


@pytest.mark.usefixtures("no_report")
def test_a_mixed_pool_comes_out_as_messages(made: Any, tmp_path: Path) -> None:
    pool, parts, selection = made
    inputs = [{**INPUTS[0], "uri": "a.jsonl"}, {**INPUTS[0], "uri": "b.csv", "format": "alpaca"}]
    mixed = Pool(pool.uri, {**pool.summary, "inputs": inputs})
    write_output(mixed, parts, selection, str(tmp_path / "out"), "input", FACTS)
    assert lines(tmp_path / "out" / "selected.jsonl")[1]["messages"] == [
        {"role": one.role, "content": one.content} for one in B.turns
    ]


@pytest.mark.parametrize("output_format", ["input", "parquet", "hf_dataset"])
def test_a_selection_of_nothing_is_a_result_too(
    output_format: str, made: Any, tmp_path: Path
) -> None:
    """A pool of bad rows alone, which min_good_fraction = 0 lets pass."""
    _, parts, _ = made
    write_pool(str(tmp_path / "pool"), iter([BAD]), {"inputs": [{**INPUTS[0], "rows": 1}]})
    pool = Pool.open(str(tmp_path / "pool"))
    none = {stage: {**held, "parts": []} for stage, held in parts.items()}
    selector = {"name": "diverse", "options": {"budget": 5, "max_similarity": 0.9}}
    selection = write_selection(str(tmp_path / "selection"), pool, none, selector)
    manifest = write_output(
        pool, none, selection, str(tmp_path / "out"), output_format, FACTS
    ).manifest
    assert (manifest["counts"]["read"], manifest["counts"]["selected"]) == (1, 0)
    assert pq.read_table(tmp_path / "out" / "decisions.parquet")["reason"].to_pylist() == [
        "no_user_turn: the roles are assistant"
    ]


@pytest.mark.usefixtures("no_report")
def test_an_earlier_result_goes_as_a_whole(made: Any, tmp_path: Path) -> None:
    pool, parts, selection = made
    write_output(pool, parts, selection, str(tmp_path / "out"), "parquet", FACTS)
    write_output(pool, parts, selection, str(tmp_path / "out"), "messages", FACTS)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "selected.jsonl",
        "decisions.parquet",
        "report.html",
        "manifest.json",
    }
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.usefixtures("no_report")
def test_what_fails_on_the_way_leaves_the_earlier_result(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, parts, selection = made
    write_output(pool, parts, selection, str(tmp_path / "out"), "messages", FACTS)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def broken(*_: Any) -> None:
        raise RuntimeError("the report broke")

    monkeypatch.setattr("deita_tasks.results.selection.build_report", broken)
    for output in ("out", "other"):
        with pytest.raises(RuntimeError, match="the report broke"):
            write_output(pool, parts, selection, str(tmp_path / output), "messages", FACTS)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_counts_that_do_not_add_up_are_never_written(made: Any, tmp_path: Path) -> None:
    pool, parts, selection = made
    wrong = {**selection, "counts": {**selection["counts"], "read": 8}}
    with pytest.raises(ValueError, match="add up to 7 rows where 8 were read"):
        write_output(pool, parts, wrong, str(tmp_path / "out"), "messages", FACTS)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_report")
def test_a_format_that_cannot_hold_a_row_says_which(tmp_path: Path) -> None:
    """alpaca has no place for a tool's turn."""
    _, parts = make(tmp_path / "store")
    tools = Conversation(
        (Turn("user", "q"), Turn("tool", "21 C"), Turn("assistant", "r")),
        SourceRow("tools.jsonl", 9),
    )
    write_pool(str(tmp_path / "pool"), iter([tools]), {"inputs": INPUTS})
    pool = Pool.open(str(tmp_path / "pool"))
    for stage, folder in (("complexity", "scores/complexity"), ("quality", "scores/quality")):
        family = PartSet.of(str(tmp_path / "store"), folder, {"by": "hand"})
        family.write("9" * 32, score_table([tools.id], [1], measured([2])))
        parts[stage]["parts"] = ["9" * 32]
    del parts["embedding"]
    selection = write_selection(
        str(tmp_path / "selection"), pool, parts, {"name": "top_score", "options": {"budget": 1}}
    )
    with pytest.raises(UsageError, match=r"alpaca cannot hold row 9 of tools\.jsonl"):
        write_output(pool, parts, selection, str(tmp_path / "out"), "alpaca", FACTS)
    assert not (tmp_path / "out").exists()


def test_damage_in_the_store_is_not_exported(made: Any, tmp_path: Path) -> None:
    pool, parts, selection = made
    kept = Path(selection["uri"]) / "kept.parquet"
    content = kept.read_bytes()
    kept.write_bytes(content[: len(content) // 2])
    try:
        with pytest.raises(DeitaError):
            write_output(pool, parts, selection, str(tmp_path / "out"), "messages", FACTS)
    finally:
        kept.write_bytes(content)
    assert not (tmp_path / "out").exists()
