"""The flow compare: arms that differ by their data alone, measured and put into words."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl", reason="the extra train is not installed")

from deita_tasks.config import Comparison, Measures, Output, Runtime, Training
from deita_tasks.errors import InputError, UsageError
from deita_tasks.finetuning import launch
from deita_tasks.finetuning.job import TrainedModel
from deita_tasks.finetuning.trained import model_uri, read_model
from deita_tasks.results.comparison import ComparedModels
from tests.support.completions_server import Script, serving
from tests.support.flow_runs import Run
from tests.support.small_pool import ROWS, write_rows
from tests.support.tiny_base import write_base

pytestmark = [pytest.mark.flow, pytest.mark.slow]


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base-model"))


@pytest.fixture
def held_out(tmp_path: Path) -> str:
    """Nine rows, the last of which has the prompt of a row of the pool in other letters."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is held out, number {number}?"},
                {"role": "assistant", "content": f"It is about bread. reason {number}"},
            ]
        }
        for number in range(1, 9)
    ]
    known = ROWS[29]["messages"]
    prompt = next(turn for turn in known if turn["role"] == "user")
    rows.append(
        {"messages": [{**prompt, "content": prompt["content"].upper()}, rows[0]["messages"][1]]}
    )
    return str(write_rows(tmp_path / "held.jsonl", rows))


def compare(selection: Path, base: Path, folder: Path, **given: Any) -> ComparedModels:
    """The flow; `given` are fields of its parameters, whichever group they are in."""
    from flows.compare import compare_models

    values = {"selection": str(selection), "base": str(base), "output": str(folder / "out")}
    values |= {"arms": ["random"], "draws": 2, "prompts": 0, "batch_size": 4, "max_length": 256}
    values |= {"epochs": 4, "learning_rate": 1e-2, "retries": 0, "checkpoint_steps": 100, **given}
    names = {
        "comparison": Comparison,
        "training": Training,
        "output": Output,
        "measures": Measures,
        "advanced": Runtime,
    }
    groups = {
        name: group(**{field: values.pop(field) for field in group.model_fields if field in values})
        for name, group in names.items()
    }
    assert not values, f"no such parameters: {values}"
    return compare_models(**groups)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The jobs that were trained, in order."""
    jobs: list[Any] = []
    original = launch._run_here

    def run_here(workplace: Any, report: Any) -> Any:
        jobs.append(workplace.job)
        return original(workplace, report)

    monkeypatch.setattr(launch, "_run_here", run_here)
    yield jobs


def test_arms_differ_by_their_data_alone_and_one_more_costs_one(
    base: Run, base_model: Path, held_out: str, tmp_path: Path, offline: None, trained: list[Any]
) -> None:
    store = str(base.store)
    first = compare(base.output, base_model, tmp_path, store=store, held_out=[held_out])
    assert len(trained) == 3
    assert len({job.data for job in trained}) == 3
    rest = [job.model_dump(exclude={"data"}) for job in trained]
    assert rest[0] == rest[1] == rest[2]
    assert all(job.rows == 10 for job in trained)

    assert first.manifest.sentence.split(":")[0] in (
        "No difference was found between the selection and random rows",
        "The selection trains a better model than random rows",
        "The selection trains a worse model than random rows",
    )
    assert first.manifest.removed == {"held-out rows": 1, "preference pairs": 0}
    assert [result.items for result in first.measures] == [8, 8]
    assert {arm.rows for arm in first.manifest.arms} == {10}
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"comparison.csv", "comparison.html", "comparison.json", "manifest.json"}
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert first.manifest.sentence.split(" (")[0].replace("+", "&#43;") in page.replace(
        "+", "&#43;"
    )

    trained.clear()
    again = compare(
        base.output,
        base_model,
        tmp_path,
        store=store,
        held_out=[held_out],
        arms=["random", "longest"],
        output=str(tmp_path / "again"),
    )
    assert len(trained) == 1
    by_group = {group.group: group.runs for group in again.measures[0].groups}
    for group in first.measures[0].groups:
        assert by_group[group.group] == group.runs
    model: TrainedModel = read_model(
        model_uri(store, again.manifest.fingerprints["longest, seed 0"])
    )
    assert model.preparation.job == trained[0]


def test_pairs_tasks_judge_and_answers(
    base: Run,
    base_model: Path,
    held_out: str,
    tmp_path: Path,
    offline: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = write_rows(
        tmp_path / "pairs.jsonl",
        [
            {"prompt": f"Pair {number}", "chosen": "It is about bread.", "rejected": "日本語の文"}
            for number in range(4)
        ],
    )

    def simple_evaluate(**arguments: Any) -> dict[str, Any]:
        return {"samples": {"arc_easy": [{"doc_id": 0, "acc": 1.0}, {"doc_id": 1, "acc": 0.0}]}}

    monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace(simple_evaluate=simple_evaluate))
    for module in ("deita_tasks.tasks.comparing", "deita_tasks.finetuning.harness"):
        monkeypatch.setattr(f"{module}.require_packages", lambda *_: None)
    script = Script()
    script.replies = ["tie"]
    with serving(script):
        compared = compare(
            base.output,
            base_model,
            tmp_path,
            store=str(base.store),
            held_out=[held_out],
            pairs=[str(pairs)],
            tasks=["arc_easy"],
            prompts=2,
            judge_url=script.url,
            judge_model="judge-1",
        )
    labels = [result.label for result in compared.measures]
    assert labels == [
        "held-out loss, mean over rows",
        "held-out loss, mean over tokens",
        "preference accuracy, per token",
        "preference accuracy, whole answers",
        "arc_easy, acc",
    ]
    assert len(script.bodies) == 2 * 2, "two prompts, in both orders, against random rows"
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    (judgement,) = written["judgements"]
    assert (judgement["group"], judgement["ties"], judgement["win_rate"]) == ("random", 2, 0.5)
    assert judgement["words"] >= 0
    assert [set(sample["answers"]) for sample in written["samples"]] == [
        {"selection", "random"}
    ] * 2
    assert all("held out" in sample["prompt"] for sample in written["samples"])


def test_held_out_rows_that_all_stand_in_an_arm_are_an_error(
    base: Run, base_model: Path, tmp_path: Path, offline: None, trained: list[Any]
) -> None:
    pool = base.output.parent / "pool.jsonl"
    with pytest.raises(
        InputError, match=r"all \d+ held-out rows have prompts that stand in an arm"
    ):
        compare(
            base.output,
            base_model,
            tmp_path,
            store=str(base.store),
            held_out=[str(pool)],
            arms=["everything"],
            max_length=2000,
        )
    assert trained == [], "told before anything is trained"


def test_nothing_to_measure_with_is_an_error(base: Run, base_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to measure with; set held_out, pairs or tasks"):
        compare(base.output, base_model, tmp_path, store=str(base.store))
