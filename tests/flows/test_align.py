"""The flow align: from a selection to a model, whose manifest names its parents."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

pytest.importorskip("trl", reason="the extra train is not installed")

from deita_tasks.config import Output, Preferences, Runtime, Training, TrainingData
from deita_tasks.errors import MissingExtra, OutputExists, TooManyBadRows
from deita_tasks.results.alignment import AlignedModel
from tests.support.flow_runs import Run
from tests.support.tiny_base import write_base

pytestmark = pytest.mark.flow


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base-model"))


def align(data: Path, base: Path, folder: Path, **given: Any) -> AlignedModel:
    """The flow; `given` are fields of its parameters, whichever group they are in."""
    from flows.align import align_model

    values = {"input": [str(data)], "base": str(base), "output": str(folder / "model")}
    values |= {"store": str(folder / "store"), "epochs": 1, "learning_rate": 1e-3, **given}
    values |= {"retries": 0, "checkpoint_steps": 100}
    names = {
        "source": TrainingData,
        "training": Training,
        "output": Output,
        "preferences": Preferences,
        "advanced": Runtime,
    }
    groups = {
        name: group(**{field: values.pop(field) for field in group.model_fields if field in values})
        for name, group in names.items()
    }
    assert not values, f"no such parameters: {values}"
    return align_model(**groups)


@pytest.mark.slow
def test_from_a_selection_to_a_model(
    base: Run, base_model: Path, tmp_path: Path, offline: None
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    row = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
    pairs.write_text(f"{json.dumps(row)}\n")
    aligned = align(base.output, base_model, tmp_path, preferences=[str(pairs)])
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    (parent,) = manifest["parents"]
    assert parent["uri"] == str(base.output)
    assert parent["pool"] == base.manifest["pool"]
    assert [stage["stage"] for stage in manifest["stages"]] == ["sft", "dpo"]
    sft, dpo = aligned.manifest.stages
    assert sft.rows == 10
    assert dpo.base == {"training": sft.address}
    assert manifest["fingerprints"] == {"sft": sft.address, "dpo": dpo.address}
    assert set(manifest["versions"]) >= {"trl", "peft", "torch"}
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files >= {"model.safetensors", "README.md", "sft_curve.csv", "dpo_left_out.csv"}
    card = (tmp_path / "model" / "README.md").read_text()
    assert "trained by `deita align`: SFT, then DPO" in card
    assert str(tmp_path) not in card, "a card shows no paths of a machine"

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert len(tokenizer) == model.config.vocab_size
    assert "USER: " in tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why?"}], tokenize=False
    )


@pytest.mark.slow
def test_a_version_of_reselect_is_trained_on_once(
    base: Run, base_model: Path, tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output of reselect stands for its latest version; what the store has is not repeated."""
    from deita_tasks.finetuning import launch
    from deita_tasks.results import versions

    output = tmp_path / "selections"
    for name in ("20260101T000000Z-0123456789abcdef", "20260102T000000Z-0123456789abcdef"):
        copytree(base.output, output / "versions" / name)
        versions.move_latest(str(output), name)
    first = align(output, base_model, tmp_path)
    assert first.manifest.parents[0].version == "20260102T000000Z-0123456789abcdef"
    monkeypatch.setattr(launch, "_run_here", None)
    again = align(output, base_model, tmp_path, output=str(tmp_path / "other"))
    assert again.manifest.fingerprints == first.manifest.fingerprints
    with pytest.raises(OutputExists, match="overwrite it"):
        align(output, base_model, tmp_path)


@pytest.mark.slow
def test_too_few_rows_in_the_window_are_an_error(
    base: Run, base_model: Path, tmp_path: Path, offline: None
) -> None:
    with pytest.raises(TooManyBadRows, match=r"rows can be trained on, less than the required 95%"):
        align(base.output, base_model, tmp_path, max_length=70)
    assert not (tmp_path / "model").exists()


def test_a_missing_extra_is_told_in_one_line(
    base: Run, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deita_tasks.finetuning.PACKAGES", ("trl", "no_such_package"))
    monkeypatch.setattr(
        "deita_tasks.finetuning.require_packages.__defaults__",
        (("trl", "no_such_package"), "train"),
    )
    expected = "'align' needs the package 'no_such_package'.*'deita-tasks\\[train\\]'"
    with pytest.raises(MissingExtra, match=expected):
        align(base.output, base_model, tmp_path)
