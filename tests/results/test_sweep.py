"""A sweep of the hand-made pool (`handmade.py`): three rows can be chosen, A (10), B (9) and C (8);
B is at 0.6 to A, C at 1.
"""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from deita_tasks.artifacts.pool import Pool, write_pool
from deita_tasks.config import Grid
from deita_tasks.errors import InputError
from deita_tasks.results.sweep import find_limit, smallest, write_sweep
from deita_tasks.selecting import load_selector
from tests.support.handmade import BAD, A, B, C, make

FACTS: dict[str, Any] = {
    "preset": "mini",
    "parameters": {"grid": {"budgets": [1, 3]}},
    "models": [],
    "fingerprints": {"complexity": {"by": "hand"}, "selection": {"strategy": "Diverse"}},
    "computed": {"complexity": 0},
    "reused": {"complexity": 5},
    "timings": {"load": 0.1},
}


def grid(**given: Any) -> dict[str, Any]:
    return Grid(
        **{
            "budgets": [1, 3],
            "similarities": [0.5, 0.9],
            "strategies": ["diverse", "top_score"],
            **given,
        }
    ).model_dump(mode="json")


def drawn(budget: int) -> list[str]:
    """The random rows, by the documented hash."""
    ids = sorted((A.id, B.id, C.id), key=lambda id: hashlib.sha256(f"0:{id}".encode()).digest()[:8])
    return ids[:budget]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("swept")
    pool, parts = make(folder / "store")
    return folder / "out", write_sweep(pool, parts, grid(), str(folder / "out"), FACTS)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_table_is_what_a_hand_says(swept: tuple[Path, dict[str, Any]]) -> None:
    by_name = {row["selection"]: row for row in swept[1]["selections"]}
    assert list(by_name) == [
        *("diverse-0.5-1", "diverse-0.9-1", "top_score-1", "random-1"),
        *("diverse-0.5-3", "diverse-0.9-3", "top_score-3", "random-3"),
    ]

    def measures(name: str) -> tuple[Any, ...]:
        row = by_name[name]
        return (
            row["kept"],
            row["mean_evol_score"],
            row["coverage_mean"],
            row["coverage_worst"],
            row["redundancy"],
        )

    # A alone: C is at distance 0 and B at 0.4.
    assert measures("diverse-0.5-1") == (1, 10, pytest.approx(0.4 / 3), pytest.approx(0.4), None)
    assert measures("diverse-0.5-3") == (1, 10, pytest.approx(0.4 / 3), pytest.approx(0.4), None), (
        "the pool runs out"
    )
    assert measures("diverse-0.9-3") == (
        2,
        9.5,
        pytest.approx(0, abs=1e-6),
        pytest.approx(0, abs=1e-6),
        pytest.approx(0.6),
    )
    everything = (
        3,
        9,
        pytest.approx(0, abs=1e-6),
        pytest.approx(0, abs=1e-6),
        pytest.approx(2.6 / 3),
    )
    assert measures("top_score-3") == measures("random-3") == everything


def test_each_row_has_a_random_one_of_its_own_size(swept: tuple[Path, dict[str, Any]]) -> None:
    scores = {A.id: 10, B.id: 9, C.id: 8}
    for row in swept[1]["selections"]:
        assert (
            row["random_mean_evol_score"]
            == sum(scores[id] for id in drawn(row["kept"])) / row["kept"]
        )


def test_the_files(swept: tuple[Path, dict[str, Any]]) -> None:
    out, told = swept
    assert {path.name for path in out.iterdir()} == {
        "sweep.csv",
        "overlap.csv",
        "sweep.html",
        "manifest.json",
    }
    table = read(out / "sweep.csv")
    assert [line["selection"] for line in table] == [row["selection"] for row in told["selections"]]
    assert table[0]["max_similarity"] == "0.5"
    assert (table[0]["redundancy"], table[2]["max_similarity"]) == ("", ""), (
        "nothing to say is an empty field"
    )
    assert float(table[0]["coverage_mean"]) == pytest.approx(0.4 / 3, abs=1e-6)
    overlap = {
        line.pop("selection"): {name: float(value) for name, value in line.items()}
        for line in read(out / "overlap.csv")
    }
    assert list(overlap) == [row["selection"] for row in told["selections"]]
    assert (
        overlap["diverse-0.9-3"]["top_score-3"]
        == overlap["top_score-3"]["diverse-0.9-3"]
        == pytest.approx(2 / 3, abs=1e-6)
    )
    assert overlap["diverse-0.5-1"]["diverse-0.9-3"] == 0.5
    assert {overlap[name][name] for name in overlap} == {1}


def test_the_manifest(swept: tuple[Path, dict[str, Any]]) -> None:
    out, told = swept
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest == {name: value for name, value in told.items() if name != "selections"}
    assert (manifest["candidates"], manifest["coverage_rows"]) == (3, 3)
    assert manifest["computed"] == {"complexity": 0, "quality": 0, "embedding": 0}
    for name, facts in manifest["outputs"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == facts["sha256"]
    selections = manifest["fingerprints"]["selection"]
    assert len(selections) == len(told["selections"])
    assert selections[0] == load_selector("diverse", budget=1, max_similarity=0.5).fingerprint()
    assert selections[-1] == load_selector("random", budget=3, seed=0).fingerprint()


def test_coverage_over_a_sample(tmp_path: Path) -> None:
    pool, parts = make(tmp_path / "store")
    told = write_sweep(
        pool, parts, grid(coverage_rows=1, strategies=["diverse"]), str(tmp_path / "out"), FACTS
    )
    assert told["coverage_rows"] == 1
    far = 0.4 if min(A.id, B.id, C.id) == B.id else 0
    assert told["selections"][0]["coverage_mean"] == pytest.approx(far, abs=1e-6)


def test_the_sample_is_the_smallest_ids_in_any_order() -> None:
    assert smallest(["d", "b", "c", "a"], 2).tolist() == [1, 3]
    assert smallest(["a", "d", "b", "c"], 2).tolist() == [0, 2]
    assert smallest(["b", "a"], 9).tolist() == [0, 1]


def test_the_limit_of_the_hand_made_pool(tmp_path: Path) -> None:
    """B is let in at 0.6, or the float32 number above it. C stands where A does."""
    pool, parts = make(tmp_path / "store")
    found = find_limit(pool, parts, 2)
    assert found["max_similarity"] in (0.6, 0.60000002)
    assert (found["kept"], found["candidates"]) == (2, 3)
    assert (
        find_limit(pool, parts, 3)
        == find_limit(pool, parts, 4)
        == {"max_similarity": 1.0, "kept": 3, "candidates": 3}
    )


def test_a_pool_with_nothing_to_choose_from(tmp_path: Path) -> None:
    _, parts = make(tmp_path / "store")
    write_pool(str(tmp_path / "empty"), iter([BAD]), {"inputs": []})
    empty = Pool.open(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="no conversation"):
        write_sweep(empty, parts, grid(), str(tmp_path / "out"), FACTS)
    with pytest.raises(InputError, match="no conversation"):
        find_limit(empty, parts, 1)
    assert not (tmp_path / "out").exists()
