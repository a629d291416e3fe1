"""A sweep of the hand-made pool (`handmade.py`).

Three rows can be selected: A (10), B (9) and C (8). B is at 0.6 to A, C at 1.
"""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.config import Grid
from deita_tasks.errors import InputError
from deita_tasks.manifest import RowsByStage
from deita_tasks.results.records import LimitSolution, Sweep
from deita_tasks.results.sweep import find_limit, write_sweep
from deita_tasks.selecting import load_selector
from deita_tasks.strict_json import DIGEST_FIELD
from tests.support.handmade import BAD, FACTS, A, B, C, make

SWEEP_FACTS = FACTS.model_copy(
    update={
        "parameters": {"grid": {"budgets": [1, 3]}},
        "fingerprints": {"complexity": {"by": "hand"}, "selection": {"strategy": "Diverse"}},
        "computed": RowsByStage(),
        "reused": RowsByStage(complexity=5),
    }
)


def grid(**options: Any) -> Grid:
    defaults: dict[str, Any] = {
        "budgets": [1, 3],
        "similarities": [0.5, 0.9],
        "strategies": ["diverse", "top_score"],
    }
    return Grid(**{**defaults, **options})


def random_rows(budget: int) -> list[str]:
    """The random rows, by the documented hash."""
    ids = sorted((A.id, B.id, C.id), key=lambda id: hashlib.sha256(f"0:{id}".encode()).digest()[:8])
    return ids[:budget]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("sweep")
    pool, stage_parts = make(folder / "store")
    return write_sweep(pool, stage_parts, grid(), str(folder / "out"), SWEEP_FACTS)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_table_is_what_follows_by_hand(sweep: Sweep) -> None:
    by_name = {row["selection"]: row for row in sweep.selections}
    assert list(by_name) == [
        *("diverse-0.5-1", "diverse-0.9-1", "top_score-1", "random-1"),
        *("diverse-0.5-3", "diverse-0.9-3", "top_score-3", "random-3"),
    ]
    columns = ("kept", "mean_evol_score", "coverage_mean", "coverage_worst", "redundancy")

    def measures(name: str) -> list[Any]:
        return [by_name[name][column] for column in columns]

    zero = pytest.approx(0, abs=1e-6)
    # A alone: C is at distance 0 and B at 0.4.
    a_alone = [1, 10, pytest.approx(0.4 / 3), pytest.approx(0.4), None]
    assert measures("diverse-0.5-1") == a_alone
    assert measures("diverse-0.5-3") == a_alone, "the pool runs out"
    assert measures("diverse-0.9-3") == [2, 9.5, zero, zero, pytest.approx(0.6)]
    everything = [3, 9, zero, zero, pytest.approx(2.6 / 3)]
    assert measures("top_score-3") == everything
    assert measures("random-3") == everything


def test_each_selection_has_a_random_one_of_its_own_size(sweep: Sweep) -> None:
    scores = {A.id: 10, B.id: 9, C.id: 8}
    for row in sweep.selections:
        kept = row["kept"]
        mean = sum(scores[id] for id in random_rows(kept)) / kept
        assert row["random_mean_evol_score"] == mean


def test_the_files(sweep: Sweep) -> None:
    out = Path(sweep.uri)
    names = {path.name for path in out.iterdir()}
    assert names == {"sweep.csv", "overlap.csv", "sweep.html", "manifest.json"}
    selections = [row["selection"] for row in sweep.selections]
    table = read_csv(out / "sweep.csv")
    assert [line["selection"] for line in table] == selections
    assert table[0]["max_similarity"] == "0.5"
    # what has no value is an empty field
    assert (table[0]["redundancy"], table[2]["max_similarity"]) == ("", "")
    assert float(table[0]["coverage_mean"]) == pytest.approx(0.4 / 3, abs=1e-6)


def test_the_overlap(sweep: Sweep) -> None:
    overlap = {line.pop("selection"): line for line in read_csv(Path(sweep.uri) / "overlap.csv")}
    assert list(overlap) == [row["selection"] for row in sweep.selections]
    two_of_three = pytest.approx(2 / 3, abs=1e-6)
    assert float(overlap["diverse-0.9-3"]["top_score-3"]) == two_of_three
    assert float(overlap["top_score-3"]["diverse-0.9-3"]) == two_of_three
    assert float(overlap["diverse-0.5-1"]["diverse-0.9-3"]) == 0.5
    assert {float(overlap[name][name]) for name in overlap} == {1}


def test_the_manifest(sweep: Sweep) -> None:
    manifest = json.loads((Path(sweep.uri) / "manifest.json").read_text())
    assert manifest == sweep.manifest.to_file_fields()
    del manifest[DIGEST_FIELD]
    assert {**manifest, "selections": sweep.selections} == dict(sweep)
    assert (manifest["candidates"], manifest["coverage_rows"]) == (3, 3)
    assert manifest["computed"] == {"complexity": 0, "quality": 0, "embedding": 0}
    assert manifest["timings"].keys() == {"load", "sweep"}
    for name, info in manifest["outputs"].items():
        content = (Path(sweep.uri) / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == info["sha256"]
    assert manifest["fingerprints"]["complexity"] == {"by": "hand"}
    selections = manifest["fingerprints"]["selection"]
    assert len(selections) == len(sweep.selections)
    assert selections[0] == load_selector("diverse", budget=1, max_similarity=0.5).fingerprint()
    assert selections[-1] == load_selector("random", budget=3, seed=0).fingerprint()


def test_coverage_over_a_sample(tmp_path: Path) -> None:
    pool, stage_parts = make(tmp_path / "store")
    one_row = grid(coverage_rows=1, strategies=["diverse"])
    sweep = write_sweep(pool, stage_parts, one_row, str(tmp_path / "out"), SWEEP_FACTS)
    assert sweep.manifest.coverage_rows == 1
    distance = 0.4 if min(A.id, B.id, C.id) == B.id else 0
    assert sweep.selections[0]["coverage_mean"] == pytest.approx(distance, abs=1e-6)


def test_the_limit_of_the_hand_made_pool(tmp_path: Path) -> None:
    """B is let in at 0.6, or the float32 number above it. C stands where A does."""
    pool, stage_parts = make(tmp_path / "store")
    two = find_limit(pool, stage_parts, 2)
    assert two.max_similarity in (0.6, 0.60000002)
    assert (two.kept, two.candidates) == (2, 3)
    everything = LimitSolution(max_similarity=1.0, kept=3, candidates=3)
    assert find_limit(pool, stage_parts, 3) == everything
    assert find_limit(pool, stage_parts, 4) == everything


def test_a_pool_without_a_candidate(tmp_path: Path) -> None:
    _, stage_parts = make(tmp_path / "store")
    write_pool(str(tmp_path / "empty"), iter([BAD]), [])
    empty = Pool.open(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="no conversation"):
        write_sweep(empty, stage_parts, grid(), str(tmp_path / "out"), SWEEP_FACTS)
    with pytest.raises(InputError, match="no conversation"):
        find_limit(empty, stage_parts, 1)
    assert not (tmp_path / "out").exists()


def test_a_sweep_ranks_by_an_expression(tmp_path: Path) -> None:
    """By quality - 2 * complexity, summed: A 3 - 4 + 4 - 2 = 1, C 4 - 4 = 0, B 3 - 6 = -3."""
    pool, stage_parts = make(tmp_path / "store")
    rank_by = "quality - 2 * complexity"
    options = grid(budgets=[1, 2], strategies=["top_score"], rank_by=rank_by)
    swept = write_sweep(pool, stage_parts, options, str(tmp_path / "out"), SWEEP_FACTS)
    means = [row["mean_evol_score"] for row in swept.selections if row["strategy"] == "top_score"]
    assert means == [1, 0.5]
    fingerprints = swept.manifest.fingerprints["selection"]
    assert {each["rank_by"] for each in fingerprints} == {rank_by}
    two = find_limit(pool, stage_parts, 2, rank_by=rank_by)
    assert two.kept == 2
