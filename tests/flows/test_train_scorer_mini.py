"""train-scorer with the head mini: no base model, and a folder that the scorer mini takes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from deita_tasks.config import (
    Output,
    Requests,
    Rewriting,
    Runtime,
    ScorerMeasures,
    ScorerTraining,
    SeedSource,
)
from deita_tasks.scoring import load_scorer
from tests.support.completions_server import serving
from tests.support.flow_runs import run
from tests.support.scorer_server import ScorerServer, write_seeds

pytestmark = pytest.mark.flow


def test_a_head_of_mini_is_fitted_measured_and_selects(
    tmp_path: Path, offline: None, prefect_server: None
) -> None:
    from flows.train_scorer import train_scorer

    pool = write_seeds(tmp_path / "seeds.jsonl", 40)
    folder = tmp_path / "scorer"
    with serving(ScorerServer()) as server:
        trained = train_scorer(
            source=SeedSource(input=[str(pool)], kind="complexity"),
            rewriting=Rewriting(rewrite_url=server.url, rewrite_model="rewriter"),
            training=ScorerTraining(head="mini"),
            output=Output(output=str(folder)),
            requests=Requests(concurrency=4),
            measures=ScorerMeasures(held_out_share=0.2, beside=["mini"]),
            advanced=Runtime(store=str(tmp_path / "store"), retries=0, device="cpu"),
        )
    manifest = trained.manifest
    assert (manifest.head, manifest.training) == ("mini", None)
    own, words, packaged = manifest.figures.held_out
    assert (words.name, packaged.name) == ("number of words", "mini")
    assert None not in (own.across, packaged.across)
    assert own.across > packaged.across

    files = {path.name for path in folder.iterdir()}
    assert files >= {"complexity.safetensors", "README.md", "scorer_data.parquet", "held_out.csv"}
    assert "--complexity mini --complexity-head" in (folder / "README.md").read_text()
    scorer = load_scorer("mini", kind="complexity", head=str(folder), device="cpu")
    texts = {row["id"]: row for row in _lines(folder / "chains.jsonl")}
    with (folder / "held_out.csv").open() as file:
        row = next(iter(csv.DictReader(file)))
    text = texts[row["chain"]]["variants"][int(row["round"])]["text"]
    assert float(scorer.score([(text, "")])[0]) == float(row["expected"])

    options = {"strategy": "top_score", "complexity": "mini", "complexity_head": str(folder)}
    selected = run(pool, tmp_path / "store", tmp_path / "out", device="cpu", **options)
    assert len(selected.kept) == 10


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.open()]
