"""A flow that computes only what its selection needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from deita_tasks.artifacts import evaluation
from deita_tasks.reporting import report
from tests.support import components
from tests.support.flow_runs import Run, run
from tests.support.small_pool import ROWS, write_rows

pytestmark = pytest.mark.flow


@pytest.fixture
def small(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Components that count as models, and samples and rounds for a pool of 30 rows."""
    for component in (components.WatchedLength, components.TopicEmbedder):
        monkeypatch.setattr(component, "device", "cpu", raising=False)
    monkeypatch.setattr(evaluation, "POOL_SAMPLE", 2)
    monkeypatch.setattr(report, "POOL_SAMPLE", 2)
    monkeypatch.setattr(evaluation, "MIN_ROUND_ROWS", 3)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    write_rows(tmp_path / "pool.jsonl", ROWS)
    return tmp_path / "pool.jsonl"


def files(run: Run) -> tuple[bytes, bytes]:
    names = ("selected.jsonl", "decisions.parquet")
    selected, decisions = ((run.output / name).read_bytes() for name in names)
    return selected, decisions


def test_it_writes_the_same_subset_with_a_part_of_the_work(
    pool: Path, small: None, tmp_path: Path
) -> None:
    lazy = run(pool, tmp_path / "lazy", tmp_path / "out", budget=4)
    embedded, scored = len(components.embedded), len(components.scored)
    everything = run(pool, tmp_path / "all", tmp_path / "out2", budget=4, evaluation="all")
    assert files(lazy)[0] == files(everything)[0]
    assert embedded < 15 and scored < 40
    reached = ("selected", "too_similar")
    for decision in reached:
        ids = [[row["id"] for row in each.decided(decision)] for each in (lazy, everything)]
        assert ids[0] == ids[1]
    manifest = lazy.manifest
    assert manifest["evaluation"] == "lazy"
    assert manifest["computed"] == {
        "complexity": 30,
        "quality": 30 - manifest["skipped"]["quality"],
        "embedding": embedded,
    }
    assert manifest["skipped"]["embedding"] == 30 - embedded
    assert everything.manifest["skipped"] == dict.fromkeys(manifest["skipped"], 0)


def test_more_budget_goes_on_from_what_is_there(pool: Path, small: None, tmp_path: Path) -> None:
    run(pool, tmp_path / "store", tmp_path / "out", budget=2)
    larger = run(pool, tmp_path / "store", tmp_path / "out2", budget=6)
    assert len(components.embedded) == len(set(components.embedded))
    assert larger.manifest["reused"]["embedding"] > 0
    fresh = run(pool, tmp_path / "fresh", tmp_path / "out3", budget=6)
    assert files(larger) == files(fresh), "what else the store has may not show"


def test_a_strategy_that_looks_at_every_row_computes_everything(
    pool: Path, small: None, tmp_path: Path
) -> None:
    done = run(pool, tmp_path / "store", tmp_path / "out", budget=4, strategy="k_center")
    assert done.manifest["evaluation"] == "all"
    assert done.manifest["computed"] == dict.fromkeys(done.manifest["computed"], 30)


def test_rounds_are_tasks_by_name(pool: Path, small: None, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client

    run(pool, tmp_path / "store", tmp_path / "out", budget=4)
    with get_client(sync_client=True) as client:
        names = [task.name for task in client.read_task_runs(limit=200)]
    assert "quality round 1 1/1" in names
    assert "embedding round 1 1/1" in names


def test_the_files_do_not_depend_on_order_shards_or_batches(
    prefect_server: None, sample_pool: Path, tmp_path: Path
) -> None:
    """With the models of preset mini, whose sums depend on a batch unless that is prevented."""
    lines = sample_pool.read_text(encoding="utf-8").splitlines()[:45]
    models = {"complexity": "mini", "quality": "mini", "embedding": "sentence_transformers"}
    written = []
    for number, shard_rows in enumerate((None, 7)):
        place = tmp_path / str(number)
        place.mkdir()
        order = lines[20 * number :] + lines[: 20 * number]
        (place / "pool.jsonl").write_text("\n".join(order), encoding="utf-8")
        options = {"budget": 12, "max_similarity": 0.6, "shard_rows": shard_rows, **models}
        done = run(place / "pool.jsonl", place / "store", place / "out", **options)
        assert done.manifest["computed"]["embedding"] >= 12
        written.append((done.output / "selected.jsonl").read_bytes())
    assert written[0] == written[1]
