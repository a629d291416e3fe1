"""Filters in a run: rows left out before any model works, tokens counted once, and explained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deita_tasks import storage
from deita_tasks.artifacts.garbage import find_garbage
from deita_tasks.artifacts.inventory import summarise
from deita_tasks.artifacts.verify import verify
from deita_tasks.config import Advanced, Embedding, Export, Filtering, Scoring, Selection, Source
from deita_tasks.plan import plan_run
from deita_tasks.results.explain import explain
from deita_tasks.tasks.filtering import apply_window
from tests.support.flow_fixtures import BASE
from tests.support.flow_runs import Run
from tests.support.runs import LENGTHS
from tests.support.small_pool import ROWS, row_id
from tests.support.tiny_base import write_base

pytestmark = pytest.mark.flow

Again = Callable[..., Run]
WINDOW = 80


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_base(tmp_path_factory.mktemp("base")))


def evaluation_file(folder: Path, *texts: str) -> str:
    path = folder / "test.jsonl"
    lines = [json.dumps({"question": text}) for text in texts]
    path.write_text("\n".join([*lines, '{"question": null}']) + "\n", encoding="utf-8")
    return str(path)


def first_turn(row: Any) -> str:
    text: str = next(turn["content"] for turn in row["messages"] if turn["role"] == "user")
    return text


def test_a_contaminated_row_is_no_candidate(again: Again, base: Run, tmp_path: Path) -> None:
    best = next(row for row in ROWS if row_id(row) == base.kept[0])
    file = evaluation_file(tmp_path, first_turn(best).upper() + "!")
    clean = again(decontaminate=[file], decontaminate_share=1)
    assert base.kept[0] not in clean.kept
    (told,) = clean.decided("contaminated")
    assert told["id"] == base.kept[0]
    assert told["evol_score"] is told["rank"] is None
    assert clean.manifest["counts"]["contaminated"] == 1
    assert clean.result["computed"] == dict.fromkeys(base.result["computed"], 0)
    (note,) = clean.manifest["notes"]
    assert "1 row could not be read" in note
    assert "row 2: the column 'question'" in note
    assert clean.manifest["fingerprints"]["decontamination"]["words"] == 13
    explanation = explain(str(clean.output), told["id"])
    assert explanation.repeated is not None
    assert explanation.repeated.text == first_turn(best).upper() + "!"
    assert explanation.repeated.row == 1
    decisions = clean.decisions
    same = again(decontaminate=[file], decontaminate_share=1, overwrite=True)
    assert same.decisions == decisions
    without = again(overwrite=True)
    assert without.kept == base.kept


def test_tokens_are_counted_once_and_budgeted(again: Again, base: Run, tokenizer: str) -> None:
    """The paper's template opens with a paragraph, which takes most of this window."""
    given = {"tokenizer": tokenizer, "train_window": WINDOW, "overwrite": True}
    run = again(**given)
    kept, tokens = run.kept, run.manifest["tokens"]
    assert tokens["window"] == WINDOW
    assert tokens["lengths"][-1]["share"] == 1
    long = {row["id"] for row in run.decided("too_long")}
    assert 0 < len(long) < 20
    assert long.isdisjoint(kept)
    less = again(**given, budget_tokens=tokens["selected"] - 1)
    assert less.kept == kept[:-1]
    assert less.manifest["tokens"]["selected"] < tokens["selected"]
    every = again(**given, budget="all", strategy="top_score")
    counts = every.manifest["counts"]
    assert counts["below_budget"] == 0
    assert counts["selected"] == 31 - len(long)
    store = str(run.store)
    kinds = {summary.artifact.kind for summary in summarise(store)}
    assert {"exclusions", "tokens"} <= kinds
    assert {result.problem for result in verify(store)} == {""}
    assert find_garbage(store) == []
    (place,) = (run.store / "exclusions").iterdir()
    found = apply_window.fn(str(place), "", None, WINDOW)
    assert found["counts"] == {"too_long": len(long)}, "of an artifact that Prefect forgot"
    parts = (run.store / "tokens").rglob("part-*.parquet")
    assert sum(pq.read_table(part).num_rows for part in parts) == len(BASE) - 2


def test_rows_are_cut_at_a_turn(again: Again, tokenizer: str) -> None:
    """What is scored, kept and exported is the cut row; the order of the pool does not matter."""
    first = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
    second = (
        {"role": "user", "content": "And then? " * 1000},
        {"role": "assistant", "content": "No."},
    )
    long = {"messages": [*first, *second], "number": 90}
    given = {"tokenizer": tokenizer, "train_window": 4000, "cut_turns": True, "budget": "all"}
    run = again([*BASE, long], **given, strategy="top_score")
    (line,) = [row for row in run.decisions if row["cut_turns"]]
    assert (line["decision"], line["cut_turns"]) == ("selected", 2)
    assert line["id"] == row_id({"messages": list(first)})
    assert line["whole_id"] == row_id(long)
    assert len(line["complexity"]) == 1, "the second exchange is not scored"
    (row,) = [row for row in run.selected if row["deita_cut_turns"]]
    assert (row["messages"], row["number"], row["deita_id"]) == (list(first), 90, line["id"])
    tokens = run.manifest["tokens"]
    assert (tokens["cut_rows"], tokens["cut_turns"]) == (1, 2)
    assert tokens["lengths"][-1]["tokens"] <= 4000
    explanation = explain(str(run.output), row_id(long))
    assert explanation.row.id == line["id"]
    assert {result.problem for result in verify(str(run.store))} == {""}
    turned = again([long, *reversed(BASE)], **given, strategy="top_score", overwrite=True)
    assert set(turned.kept) == set(run.kept)
    assert turned.result["computed"] == dict.fromkeys(run.result["computed"], 0)


def test_a_selection_without_filters_keeps_its_digest(again: Again, tmp_path: Path) -> None:
    from deita_tasks.tasks.selecting import SELECT_VERSION, selection_digest, stage_digests

    pool = tmp_path / "pool.jsonl"
    pool.write_text(json.dumps(ROWS[0]) + "\n", encoding="utf-8")
    file = evaluation_file(tmp_path, "Why?")
    digests = []
    for filtering in (Filtering(), Filtering(decontaminate=[file])):
        plan = plan_run(
            Source(input=[str(pool)]),
            "mini",
            Scoring(**LENGTHS),
            Embedding(),
            Selection(),
            Export(output=str(tmp_path / "out")),
            Advanced(store=str(tmp_path / "store")),
            filtering,
        )
        digests.append(selection_digest(plan, "pool"))
    assert digests[0] == storage.digest_of(
        {
            "pool": "pool",
            "stages": stage_digests(plan),
            "selector": plan.selector.fingerprint(),
            "evaluation": "lazy",
            "version": SELECT_VERSION,
        }
    )
    assert digests[1] != digests[0]
