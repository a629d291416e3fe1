"""`deita sweep` and `deita solve` on the small pool, as a user calls them; and a selection for
which the pool is too small.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deita_tasks import config
from deita_tasks.config import Grid
from flows.cli.app import main
from flows.cli.options import flag
from tests.support import components
from tests.support.selection_reference import sequential
from tests.support.small_pool import ROWS, row_id, row_score

IDS, SCORES = [row_id(row) for row in ROWS], [row_score(row) for row in ROWS]
VECTORS = [
    components.vector_of(" ".join(turn["content"] for turn in row["messages"])) for row in ROWS
]


def kept(budget: int, limit: float) -> list[str]:
    """The paper's rule, one pair of rows at a time."""
    chosen: list[str] = sequential(IDS, SCORES, VECTORS, budget, limit)[0]
    return chosen


GROUPS: dict[str, type[config.Group]] = {
    "source": config.Source,
    "scoring": config.Scoring,
    "embedding": config.Embedding,
    "advanced": config.Advanced,
}
SWEEP_GROUPS = {**GROUPS, "grid": config.Grid, "output": config.Output}
SOLVE_GROUPS = {**GROUPS, "budget": config.Budget}


def ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


def places(tmp_path: Path, pool: Path) -> list[str]:
    return ["--input", str(pool), "--store", str(tmp_path / "store")]


@pytest.mark.flow
def test_a_sweep_and_a_limit_from_one_store(
    tiny: None, tmp_path: Path, small_pool: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The second command finds all scores and vectors there; the third its answer."""
    grid = [
        "--budgets",
        "5",
        "--budgets",
        "20",
        "--similarities",
        "0.6",
        "--similarities",
        "0.95",
        "--coverage-rows",
        "12",
    ]
    output = ["--output", str(tmp_path / "out")]
    assert ended("sweep", *places(tmp_path, small_pool), *output, *grid) == 0
    said = capfd.readouterr().out
    with (tmp_path / "out" / "sweep.csv").open(newline="") as handle:
        table = {line["selection"]: line for line in csv.DictReader(handle)}
    assert set(table) == {
        f"{setting}-{budget}"
        for setting in ("diverse-0.6", "diverse-0.95", "top_score", "random")
        for budget in (5, 20)
    }
    for limit in (0.6, 0.95):
        for budget in (5, 20):
            line, wanted = table[f"diverse-{limit}-{budget}"], kept(budget, limit)
            assert int(line["kept"]) == len(wanted)
            mean = sum(SCORES[IDS.index(id)] for id in wanted) / len(wanted)
            assert float(line["mean_evol_score"]) == pytest.approx(mean, abs=1e-4)
            assert f"{mean:.2f}" in said
    short = len(kept(20, 0.6))
    assert short < 20, "the pool shows too little"
    assert f"only {short}" in said
    assert "12 of 30 conversations" in said
    assert all(name in said for name in ("sweep.csv", "overlap.csv", "sweep.html", "manifest.json"))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["computed"] == {"complexity": 30, "quality": 30, "embedding": 30}
    assert manifest["parameters"]["grid"] == Grid(
        budgets=[5, 20], similarities=[0.6, 0.95], coverage_rows=12
    ).model_dump(mode="json") | dict.fromkeys(("target", "tags", "rank_by"))

    components.reset()
    assert ended("solve", *places(tmp_path, small_pool), "--budget", "12") == 0
    assert (components.embedded, components.scored) == ([], []), "no model work"
    said = capfd.readouterr().out
    limit = float(said.split()[1])
    assert (
        "selects 12 of the 30 distinct conversations with scores and a vector: the budget is "
        "filled.\nThe next smaller limit selects fewer" in said
    )
    assert len(kept(12, limit)) == 12
    assert len(kept(12, float(np.nextafter(np.float32(limit), np.float32(-1))))) < 12

    assert ended("solve", *places(tmp_path, small_pool), "--budget", "31") == 0
    most = len(kept(31, 1.0))
    assert (
        f"The pool runs out: even --max-similarity 1 selects {most} of the 30 distinct"
        in capfd.readouterr().out
    )

    assert ended("sweep", *places(tmp_path, small_pool), *output, *grid) == 2
    assert "--overwrite" in capfd.readouterr().err
    assert (
        ended("sweep", *places(tmp_path, small_pool), *output, "--budgets", "3", "--overwrite") == 0
    )
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["reused"] == {
        "complexity": 30,
        "quality": 30,
        "embedding": 30,
    }
    assert (components.embedded, components.scored) == ([], [])


@pytest.mark.flow
def test_a_limit_that_was_found_before_is_remembered(
    tiny: None, tmp_path: Path, small_pool: Path, monkeypatch: Any
) -> None:
    from deita_tasks.tasks import selecting

    asked: list[int] = []
    find = selecting.find_limit
    monkeypatch.setattr(
        selecting,
        "find_limit",
        lambda pool, parts, budget, *rest: asked.append(budget) or find(pool, parts, budget, *rest),
    )
    for budget in ("4", "4", "5"):
        assert ended("solve", *places(tmp_path, small_pool), "--budget", budget) == 0
    assert asked == [4, 5]


@pytest.mark.flow
@pytest.mark.parametrize("strategy", ["diverse", "top_score"])
def test_a_selection_says_that_the_pool_ran_out(
    strategy: str, tiny: None, tmp_path: Path, small_pool: Path, capfd: Any
) -> None:
    output = ["--output", str(tmp_path / "out")]
    assert (
        ended(
            "select",
            *places(tmp_path, small_pool),
            *output,
            "--budget",
            "1000",
            "--strategy",
            strategy,
        )
        == 0
    )
    said = capfd.readouterr().out
    count = len(kept(1000, 0.9)) if strategy == "diverse" else 30
    assert (
        f"The pool ran out before the budget: {count} of 1,000 conversations were selected" in said
    )
    assert ("deita solve --budget 1000" in said) == (strategy == "diverse")


@pytest.mark.flow
def test_an_exact_size_that_the_pool_has_not(
    tiny: None, tmp_path: Path, small_pool: Path, capfd: Any
) -> None:
    """Nothing is written, and the next command computes nothing again."""
    output = ["--output", str(tmp_path / "out"), "--budget", "1000"]
    assert ended("select", *places(tmp_path, small_pool), *output, "--target-size", "exact") == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("deita: ")]
    assert f"{len(kept(1000, 0.9))} of 1,000 conversations were selected" in line
    assert "`deita solve --budget 1000`" in line
    assert not (tmp_path / "out").exists()
    components.reset()
    assert ended("select", *places(tmp_path, small_pool), *output) == 0
    assert (components.embedded, components.scored) == ([], [])


@pytest.mark.flow
def test_a_result_explains_itself(tiny: None, tmp_path: Path, small_pool: Path, capfd: Any) -> None:
    output = ["--output", str(tmp_path / "out")]
    assert ended("select", *places(tmp_path, small_pool), *output, "--budget", "10") == 0
    best = kept(10, 0.9)[0]
    assert "ran out" not in capfd.readouterr().out, "the budget is full"
    assert ended("explain", best[:8], *output) == 0
    said = capfd.readouterr().out
    assert f"id          {best}\ndecision    selected" in said
    assert "rank        1 of 30" in said


# ---- what is wrong is one line and status 2


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        ("sweep", [], "--input is required"),
        ("sweep", ["--input", "POOL"], "--output is required"),
        (
            "sweep",
            ["--input", "POOL", "--output", "OUT", "--budgets", "0"],
            "grid.budgets[0]: 0 arrived",
        ),
        (
            "sweep",
            ["--input", "POOL", "--output", "OUT", "--budgets", "many"],
            "grid.budgets[0]: 'many' arrived",
        ),
        (
            "sweep",
            ["--input", "POOL", "--output", "OUT", "--similarities", "1.5"],
            "grid.similarities[0]: 1.5 arrived",
        ),
        (
            "sweep",
            ["--input", "POOL", "--output", "OUT", "--strategies", "best"],
            "grid.strategies[0]: 'best' arrived",
        ),
        ("sweep", ["--input", "POOL", "--output", "OUT", "--budget", "5"], "--budget"),
        ("sweep", ["--input", "absent.jsonl", "--output", "OUT"], "absent.jsonl"),
        ("sweep", ["--input", "POOL", "--output", "POOL"], "folder"),
        ("solve", [], "--input is required"),
        ("solve", ["--input", "POOL", "--budget", "0"], "budget.budget: 0 arrived"),
        ("solve", ["--input", "POOL", "--preset", "huge"], "huge"),
        ("solve", ["--input", "absent.jsonl"], "absent.jsonl"),
        ("solve", ["--input", "POOL", "--output", "OUT"], "--output"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    command: str,
    given: list[str],
    said: str,
    tmp_path: Path,
    small_pool: Path,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"POOL": str(small_pool), "OUT": str(tmp_path / "out")}
    assert ended(command, *(names.get(one, one) for one in given)) == 2
    shown = capfd.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith("deita: ")
    assert said in line
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("command", "groups"), [("sweep", SWEEP_GROUPS), ("solve", SOLVE_GROUPS)])
def test_every_field_is_a_flag_and_a_line_of_a_file(
    command: str,
    groups: Any,
    tmp_path: Path,
    small_pool: Path,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The help names each; what a YAML file says arrives, unless a flag says otherwise."""
    monkeypatch.setenv("COLUMNS", "600")
    assert ended(command, "--help-all") == 0
    said = capfd.readouterr().out
    assert all(flag(name) in said for model in groups.values() for name in model.model_fields)
    import flows.solve
    import flows.sweep

    seen: dict[str, Any] = {}

    def note(**given: Any) -> Any:
        seen.update(given)
        return SimpleNamespace(uri="out")

    monkeypatch.setattr(flows.sweep, "sweep_selections", note)
    monkeypatch.setattr(flows.solve, "solve_for_budget", note)
    monkeypatch.setattr("flows.cli.app.print_sweep", lambda *given: None)
    monkeypatch.setattr("flows.cli.app.print_solution", lambda *given: None)
    file = tmp_path / "config.yaml"
    own = {
        "sweep": {
            "output": {"output": str(tmp_path / "out")},
            "grid": {"budgets": [7, 8], "seed": 3},
        },
        "solve": {"budget": {"budget": 7}},
    }
    file.write_text(
        json.dumps(
            {
                "source": {"input": str(small_pool)},
                "advanced": {"retries": 5, "store": str(tmp_path / "s")},
                **own[command],
            }
        )
    )
    flags = {"sweep": ["--budgets", "9", "--budgets", "6"], "solve": []}[command]
    assert ended(command, "--config", str(file), "--retries", "4", *flags) == 0
    assert seen["advanced"].retries == 4
    assert seen["source"].input == [str(small_pool)]
    if command == "sweep":
        assert (seen["grid"].budgets, seen["grid"].seed) == ([6, 9], 3)
    else:
        assert seen["budget"].budget == 7
