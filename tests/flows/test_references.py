"""Rows compared with texts that are not of the pool: targets, tags, evaluation rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deita_tasks.artifacts.garbage import find_garbage
from deita_tasks.artifacts.inventory import summarise
from deita_tasks.artifacts.verify import verify
from deita_tasks.errors import UsageError
from deita_tasks.selecting import SELECTORS
from flows.cli.app import main
from tests.support import components
from tests.support.flow_fixtures import BASE
from tests.support.flow_runs import Run
from tests.support.small_pool import ROWS, row_id, row_score

pytestmark = pytest.mark.flow

Again = Callable[..., Run]


def vector(text: str) -> Any:
    row = np.array(components.vector_of(text), np.float64)
    return row / np.linalg.norm(row)


VECTORS = {
    row_id(row): vector(" ".join(turn["content"] for turn in row["messages"])) for row in ROWS
}
SCORES = {row_id(row): row_score(row) for row in ROWS}


def prompts(path: Path, *texts: str) -> str:
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts), "utf-8")
    return str(path)


def by_similarity(text: str) -> list[str]:
    target = vector(text)
    return sorted(VECTORS, key=lambda id: (-np.float32(VECTORS[id] @ target), -SCORES[id], id))


def test_each_target_file_takes_turns(again: Again, tmp_path: Path) -> None:
    """Two prompts of the first file share its turns: chess, stars, chess, verbs, ..."""
    first = prompts(tmp_path / "a.jsonl", "stars", "verbs")
    second = prompts(tmp_path / "b.jsonl", "chess")
    run = again(ROWS, strategy="relevance", target=[first, second], budget=6)
    orders = {text: by_similarity(text) for text in ("stars", "verbs", "chess")}
    kept = []
    turns = [["stars", "verbs", "stars"], ["chess"] * 3]
    of_first = sorted(("stars", "verbs"), key=lambda text: row_id(one_turn(text)))
    turns[0] = [of_first[0], of_first[1], of_first[0]]
    for pair in zip(*turns, strict=True):
        for text in pair:
            kept.append(next(id for id in orders[text] if id not in kept))
    assert run.kept == kept
    counts = run.result["computed"]
    assert counts["embedding"] == 0, "only the targets were embedded"
    assert run.manifest["fingerprints"]["selection"]["target"] == [first, second]
    store = str(run.store)
    assert "references" in {summary.artifact.kind for summary in summarise(store)}
    assert {result.problem for result in verify(store)} == {""}
    assert find_garbage(store) == []


def one_turn(text: str) -> Any:
    return {"messages": [{"role": "user", "content": text}]}


def test_tags_of_a_column_make_a_graph(again: Again) -> None:
    """Two tags without similarity: the best row of each comes first."""
    rows = [
        {**row, "labels": ["bread" if number % 2 else "chess"]} for number, row in enumerate(ROWS)
    ]
    run = again(rows, strategy="mig", tags="labels", budget=2)
    best = {}
    for row in rows:
        best.setdefault(row["labels"][0], []).append(row)

    def mean_score(row: Any) -> float:
        users = sum(turn["role"] == "user" for turn in row["messages"])
        return row_score(row) / users

    expected = {row_id(max(group, key=mean_score)) for group in best.values()}
    assert set(run.kept) == expected
    with pytest.raises(UsageError, match="no row of the pool has such a column"):
        again(rows, strategy="mig", tags="topics", overwrite=True)


def test_rows_near_an_evaluation_row_are_contaminated(again: Again, tmp_path: Path) -> None:
    file = prompts(tmp_path / "test.jsonl", "Nothing of it stands in the pool, but stars do")
    text = "Nothing of it stands in the pool, but stars do"
    similarities = {id: float(np.float32(row @ vector(text))) for id, row in VECTORS.items()}
    limit = round(sorted(similarities.values())[-4] - 1e-4, 6)
    run = again(BASE, decontaminate=[file], decontaminate_similarity=limit)
    near = {id for id, similarity in similarities.items() if similarity > limit}
    told = run.decided("contaminated")
    assert near == {row["id"] for row in told}
    assert len(near) >= 4
    assert near.isdisjoint(run.kept)
    assert all("its embedding has a similarity of" in row["reason"] for row in told)


def test_every_strategy_in_one_sweep(tiny: None, tmp_path: Path) -> None:
    rows = [{**row, "labels": ["odd" if number % 2 else "even"]} for number, row in enumerate(ROWS)]
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    flags = ["--input", str(pool), "--store", str(tmp_path / "store"), "--budgets", "5"]
    flags += ["--output", str(tmp_path / "out"), "--tags", "labels"]
    flags += ["--target", prompts(tmp_path / "target.jsonl", "stars", "taxes")]
    for name in SELECTORS:
        flags += ["--strategies", name]
    with pytest.raises(SystemExit) as caught:
        main(["sweep", *flags])
    assert not caught.value.code
    with (tmp_path / "out" / "sweep.csv").open(newline="") as handle:
        table = list(csv.DictReader(handle))
    strategies = {line["selection"].split("-")[0] for line in table}
    assert strategies == set(SELECTORS)
    assert all(line["kept"] == "5" for line in table)
    page = (tmp_path / "out" / "sweep.html").read_text()
    assert all(name in page for name in SELECTORS)
