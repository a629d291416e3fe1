"""The output folder of a hand-made selection from a hand-made pool (`handmade.py`)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from deita_tasks.artifacts.part_tables import score_table
from deita_tasks.artifacts.parts import PartSet, StageParts
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.artifacts.selection import SelectionSummary, write_selection
from deita_tasks.config import SubsetOptions
from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.errors import DeitaError, UsageError
from deita_tasks.presets import Spec
from deita_tasks.results.selection import WrittenSelection, write_output
from tests.support.handmade import BAD, FACTS, INPUTS, A, B, C, make, model_output, without_parts
from tests.support.outputs import leave_out_report


class Made(NamedTuple):
    """A pool, its parts and a selection from it."""

    pool: Pool
    stage_parts: dict[str, StageParts]
    selection: SelectionSummary

    def write(self, output: Path, output_format: str = "messages") -> WrittenSelection:
        """Write the selection to `output`."""
        return write_output(
            *self, str(output), SubsetOptions(output_format=output_format), FACTS, seed=0
        )


def diverse(max_similarity: float) -> Spec:
    return {"name": "diverse", "options": {"budget": 5, "max_similarity": max_similarity}}


@pytest.fixture(scope="module")
def three_rows(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A, B and C are selected."""
    folder = tmp_path_factory.mktemp("made")
    pool, stage_parts = make(folder)
    selection = write_selection(str(folder / "selection"), pool, stage_parts, diverse(1.0))
    return Made(pool, stage_parts, selection)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_report(monkeypatch)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


FILES = {
    *("selected.jsonl", "README.md", "dataset_info.json", "axolotl.yaml"),
    *("decisions.parquet", "report.html", "manifest.json"),
}


def test_the_folder_holds_all_that_is_promised(three_rows: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = three_rows.write(out, "input")
    manifest = written.manifest
    assert names(out) == FILES
    assert (out / "manifest.json").read_text() == manifest.to_json()
    assert (manifest.counts, manifest.inputs) == (three_rows.selection.counts, INPUTS)
    assert (manifest.preset, manifest.seed, manifest.timings) == ("mini", 0, {"load": 0.1})
    assert manifest.outputs.keys() == FILES - {"manifest.json"}
    assert written.data.manifest == manifest  # the run's page in the UI names the files
    for name, info in manifest.outputs.items():
        content = (out / name).read_bytes()
        assert (info.sha256, info.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    stored = pq.read_table(Path(three_rows.selection.uri) / "decisions.parquet")
    assert pq.read_table(out / "decisions.parquet").equals(stored)


@pytest.mark.usefixtures("no_report")
def test_the_rows_come_in_the_order_selected_in_the_pools_format(
    three_rows: Made, tmp_path: Path
) -> None:
    three_rows.write(tmp_path / "out", "input")
    rows = lines(tmp_path / "out" / "selected.jsonl")
    columns = ("deita_id", "deita_evol_score", "deita_rank", "line")
    assert [tuple(row[column] for column in columns) for row in rows] == [
        (A.id, 10.0, 1, 1),
        (B.id, 9.0, 2, 2),
        (C.id, 8.0, 3, 4),  # the first of the two
    ]
    turns = [turn["content"] for turn in rows[0]["messages"]]  # A comes from no row of a file
    assert turns == [turn.content for turn in A.turns]


@pytest.mark.parametrize(
    ("output_format", "name"),
    [("messages", "selected.jsonl"), ("parquet", "selected.parquet"), ("hf_dataset", "README.md")],
)
def test_another_format(output_format: str, name: str, three_rows: Made, tmp_path: Path) -> None:
    outputs = three_rows.write(tmp_path / "out", output_format).manifest.outputs
    assert {name, "decisions.parquet", "report.html"} <= outputs.keys()


@pytest.mark.usefixtures("no_report")
def test_a_mixed_pool_comes_out_as_messages(three_rows: Made, tmp_path: Path) -> None:
    inputs = [
        INPUTS[0].model_copy(update={"uri": "a.jsonl"}),
        INPUTS[0].model_copy(update={"uri": "b.csv", "format": "alpaca"}),
    ]
    pool = three_rows.pool
    mixed = Pool(pool.uri, pool.summary.model_copy(update={"inputs": inputs}))
    three_rows._replace(pool=mixed).write(tmp_path / "out", "input")
    assert lines(tmp_path / "out" / "selected.jsonl")[1]["messages"] == [
        {"role": turn.role, "content": turn.content} for turn in B.turns
    ]


@pytest.mark.parametrize("output_format", ["input", "parquet", "hf_dataset"])
def test_a_selection_of_nothing_is_a_result_too(
    output_format: str, three_rows: Made, tmp_path: Path
) -> None:
    """A pool of bad rows alone, which min_good_fraction = 0 lets pass."""
    inputs = [INPUTS[0].model_copy(update={"rows": 1})]
    write_pool(str(tmp_path / "pool"), iter([BAD]), inputs)
    pool = Pool.open(str(tmp_path / "pool"))
    no_parts = without_parts(three_rows.stage_parts)
    selection = write_selection(str(tmp_path / "selection"), pool, no_parts, diverse(0.9))
    counts = Made(pool, no_parts, selection).write(tmp_path / "out", output_format).manifest.counts
    assert (counts.read, counts.selected) == (1, 0)
    reasons = pq.read_table(tmp_path / "out" / "decisions.parquet")["reason"].to_pylist()
    assert reasons == ["no_user_turn: the roles are assistant"]


@pytest.mark.usefixtures("no_report")
def test_an_earlier_result_goes_as_a_whole(three_rows: Made, tmp_path: Path) -> None:
    three_rows.write(tmp_path / "out", "parquet")
    three_rows.write(tmp_path / "out", "messages")
    assert names(tmp_path / "out") == FILES
    assert names(tmp_path) == {"out"}


@pytest.mark.usefixtures("no_report")
def test_an_earlier_result_is_compared_with(three_rows: Made, tmp_path: Path) -> None:
    three_rows.write(tmp_path / "old")
    arguments = (*three_rows, str(tmp_path / "new"), SubsetOptions(output_format="messages"), FACTS)
    write_output(*arguments, seed=0, previous=str(tmp_path / "old"))
    assert names(tmp_path / "new") == FILES | {"changes.json", "changes.parquet"}
    changes = json.loads((tmp_path / "new" / "changes.json").read_text())
    assert (changes["before"], changes["selection"]["added"]) == ("old", 0)


@pytest.mark.usefixtures("no_report")
def test_an_earlier_result_that_is_gone_is_not_compared_with(
    three_rows: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = (*three_rows, str(tmp_path / "new"), SubsetOptions(output_format="messages"), FACTS)
    write_output(*arguments, seed=0, previous=str(tmp_path / "old"))
    assert names(tmp_path / "new") == FILES
    assert "no comparison with the previous version" in caplog.text


@pytest.mark.usefixtures("no_report")
def test_a_failure_on_the_way_leaves_the_earlier_result(
    three_rows: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_rows.write(tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def break_off(*_: Any) -> None:
        raise RuntimeError("the report broke")

    monkeypatch.setattr("deita_tasks.results.selection.build_report", break_off)
    for output in ("out", "other"):
        with pytest.raises(RuntimeError, match="the report broke"):
            three_rows.write(tmp_path / output)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert names(tmp_path) == {"out"}


def test_counts_that_do_not_add_up_are_never_written(three_rows: Made, tmp_path: Path) -> None:
    fields = three_rows.selection.to_dict()
    fields["counts"]["read"] = 8
    with pytest.raises(ValueError, match="add up to 7 rows where 8 were read"):
        three_rows._replace(selection=SelectionSummary.model_validate(fields)).write(
            tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_report")
def test_a_format_that_cannot_hold_a_row_says_which(tmp_path: Path) -> None:
    """alpaca has no place for a tool's turn."""
    turns = (Turn("user", "q"), Turn("tool", "21 C"), Turn("assistant", "r"))
    with_tool = Conversation(turns, SourceRow("tools.jsonl", 9))
    write_pool(str(tmp_path / "pool"), iter([with_tool]), INPUTS)
    pool = Pool.open(str(tmp_path / "pool"))
    stage_parts = {}
    for stage in ("complexity", "quality"):
        part_set = PartSet.create(str(tmp_path / "store"), f"scores/{stage}", {"by": "hand"})
        digest = part_set.write("9" * 32, [score_table([with_tool.id], [1], model_output([2]))])
        stage_parts[stage] = StageParts(part_set=part_set, digests=[digest])
    selector: Spec = {"name": "top_score", "options": {"budget": 1}}
    selection = write_selection(str(tmp_path / "selection"), pool, stage_parts, selector)
    with pytest.raises(UsageError, match=r"alpaca cannot hold row 9 of tools\.jsonl"):
        Made(pool, stage_parts, selection).write(tmp_path / "out", "alpaca")
    assert not (tmp_path / "out").exists()


def test_damage_in_the_store_is_not_exported(three_rows: Made, tmp_path: Path) -> None:
    kept = Path(three_rows.selection.uri) / "kept.parquet"
    content = kept.read_bytes()
    kept.write_bytes(content[: len(content) // 2])
    try:
        with pytest.raises(DeitaError):
            three_rows.write(tmp_path / "out")
    finally:
        kept.write_bytes(content)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_report")
def test_scores_can_stay_out_of_the_subset(three_rows: Made, tmp_path: Path) -> None:
    options = SubsetOptions(output_format="messages", scores=False)
    write_output(*three_rows, str(tmp_path / "out"), options, FACTS, seed=0)
    for row in lines(tmp_path / "out" / "selected.jsonl"):
        assert not any(name.startswith("deita_") for name in row)


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(("complete_only", "expected"), [(True, ["r"]), (False, ["r", "open"])])
def test_rows_without_an_answer_at_the_end_can_stay_out(
    complete_only: bool, expected: list[str], tmp_path: Path
) -> None:
    """They stay in the ledger, and the manifest counts them."""
    exchange = (Turn("user", "q"), Turn("assistant", "r"))
    both = [
        Conversation(exchange, SourceRow("a.jsonl", 1)),
        Conversation((*exchange, Turn("user", "open")), SourceRow("a.jsonl", 2)),
    ]
    inputs = [INPUTS[0].model_copy(update={"rows": 2})]
    write_pool(str(tmp_path / "pool"), iter(both), inputs)
    stage_parts = {}
    for stage in ("complexity", "quality"):
        part_set = PartSet.create(str(tmp_path / "store"), f"scores/{stage}", {"by": "hand"})
        table = score_table([row.id for row in both], [1, 1], model_output([3, 2]))
        digest = part_set.write("9" * 32, [table])
        stage_parts[stage] = StageParts(part_set=part_set, digests=[digest])
    selector: Spec = {"name": "top_score", "options": {"budget": 2}}
    pool = Pool.open(str(tmp_path / "pool"))
    selection = write_selection(str(tmp_path / "selection"), pool, stage_parts, selector)
    options = SubsetOptions(output_format="messages", complete_only=complete_only)
    output = tmp_path / "out"
    written = write_output(pool, stage_parts, selection, str(output), options, FACTS, seed=0)
    last = [row["messages"][-1]["content"] for row in lines(output / "selected.jsonl")]
    assert last == expected
    assert written.manifest.left_out == 2 - len(expected)
    assert written.manifest.counts.selected == 2
    decisions = pq.read_table(output / "decisions.parquet")["decision"].to_pylist()
    assert decisions == ["selected", "selected"]
