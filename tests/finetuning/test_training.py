"""Training: the loss falls, a killed run goes on to the same weights, faults are told."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from deita_tasks import storage
from deita_tasks.conversations import SourceRow
from deita_tasks.errors import (
    ComputeError,
    DamagedArtifact,
    InputError,
    ModelError,
    StorageError,
    TrainingFailed,
    UsageError,
)
from deita_tasks.finetuning import launch, trainer
from deita_tasks.finetuning.checkpoints import Checkpoints
from deita_tasks.finetuning.examples import build_training_set
from deita_tasks.finetuning.job import OutOfMemory, Preparation, TrainedModel, device_batch_size
from deita_tasks.finetuning.preferences import Preference
from deita_tasks.finetuning.trained import (
    Settings,
    is_trained,
    local_model,
    model_uri,
    prepare_dpo,
    prepare_sft,
    train_prepared,
)
from deita_tasks.models.chat_tokenizer import BaseName, load_tokenizer
from deita_tasks.recipes import RECIPES, DpoRecipe, Lora, SftRecipe
from tests.support.checkpoints import poison
from tests.support.runs import ROOT
from tests.support.tiny_base import conversations, encoded

pytest_plugins = ["tests.support.s3_fixtures"]

FAST: dict[str, Any] = {"learning_rate": 1e-2, "batch_size": 8, "device_batch_size": 4}
SFT = RECIPES["cpu"].sft.model_copy(update={**FAST, "epochs": 2})
LORA = SFT.model_copy(update={"lora": Lora(rank=4, alpha=8, dropout=0.2)})
DPO = RECIPES["cpu"].dpo.model_copy(update={**FAST, "learning_rate": 1e-3, "epochs": 3})


def silent(step: int, steps: int, values: dict[str, float]) -> None:
    """A report that nobody reads."""


def prepare(
    base: BaseName, store: str, recipe: SftRecipe = SFT, rows: int = 20, **settings: Any
) -> Preparation:
    tokenization = load_tokenizer(base)
    data = build_training_set(encoded(conversations(rows), tokenization), recipe.max_length)
    return prepare_sft(base, data, tokenization, recipe, Settings(store, device="cpu", **settings))


def trained(base: BaseName, store: str, **options: Any) -> TrainedModel:
    preparation = prepare(base, store, **options)
    return train_prepared(store, preparation.job.address, None, silent)


def weights(store: str, model: TrainedModel) -> dict[str, Any]:
    name = "adapter_model.safetensors" if model.is_adapter else "model.safetensors"
    with local_model(model_uri(store, model.address)) as folder:
        return load_file(f"{folder}/{name}")


def are_equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(first[key].equal(second[key]) for key in first)


def test_the_loss_falls(base: BaseName, tmp_path: Path) -> None:
    model = trained(base, str(tmp_path), checkpoint_steps=100)
    losses = [point.values["loss"] for point in model.outcome.curve]
    assert len(losses) == model.preparation.job.steps == 6
    assert losses[-1] < losses[0] - 0.5
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja"} <= model.files.keys()
    assert not any(name.endswith(".bin") for name in model.files), "nothing pickled"
    assert is_trained(model_uri(str(tmp_path), model.address))
    assert storage.is_empty(str(tmp_path / "trainings")), "data and checkpoints are gone"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [SFT, LORA], ids=["full", "lora"])
def test_a_killed_training_goes_on_to_the_same_weights(
    recipe: SftRecipe, base_folder: Path, tmp_path: Path, offline: None
) -> None:
    """The base has dropout of its own, so the random state has to go on too."""
    folder = copytree(base_folder, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.1}))
    base = BaseName(model=str(folder))
    undisturbed = trained(base, str(tmp_path / "whole"), recipe=recipe, checkpoint_steps=100)
    store = str(tmp_path / "killed")
    address = prepare(base, store, recipe=recipe, checkpoint_steps=2).job.address
    assert address == undisturbed.address, "how often it saves changes nothing"
    kill_at(store, address, update=5)
    again = train_prepared(store, address, None, silent)
    assert again.outcome.resumed == [4]
    assert again.outcome.curve == undisturbed.outcome.curve
    assert are_equal(weights(store, again), weights(str(tmp_path / "whole"), undisturbed))


def kill_at(store: str, address: str, update: int) -> None:
    """Train in another process, and kill it within an update."""
    command = [sys.executable, "-m", "tests.support.train_and_stop", store, address, str(update)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert any("standing" in line for line in process.stdout)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not is_trained(model_uri(store, address))


@pytest.mark.slow
def test_checkpoints_and_models_in_s3(s3: Any, base: BaseName, tmp_path: Path) -> None:
    store = f"s3://{s3.bucket()}/store"
    address = prepare(base, store, checkpoint_steps=2).job.address

    class Broken(Exception):
        pass

    def break_at_five(step: int, steps: int, values: dict[str, float]) -> None:
        if step == 5:
            raise Broken

    with pytest.raises(Broken):
        train_prepared(store, address, None, break_at_five)
    model = train_prepared(store, address, None, silent)
    assert model.outcome.resumed == [4]
    here = trained(base, str(tmp_path), checkpoint_steps=100)
    assert here.address == address
    assert are_equal(weights(store, model), weights(str(tmp_path), here))


def test_a_damaged_checkpoint_is_passed_over(base: BaseName, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, str(tmp_path))
    assert checkpoints.restore() is None
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "weights").write_bytes(b"1234")
    assert checkpoints.restore() is None, "without its record it was never finished"
    checkpoints.keep(3)
    assert checkpoints.restore() == tmp_path / "checkpoint-3"
    (tmp_path / "checkpoint-3" / "weights").write_bytes(b"1235")
    assert checkpoints.restore() is None


class Interrupted(Exception):
    pass


def interrupt_at(base: BaseName, store: str, update: int) -> str:
    """Train with a checkpoint after every update, and end early; return the address."""
    address = prepare(base, store, checkpoint_steps=1).job.address

    def interrupt(step: int, steps: int, values: dict[str, float]) -> None:
        if step == update:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_prepared(store, address, None, interrupt)
    return address


def test_a_planted_checkpoint_is_not_run(base: BaseName, tmp_path: Path) -> None:
    """Who can write to the store can write its digests too."""
    store, ran = str(tmp_path / "store"), tmp_path / "ran"
    address = interrupt_at(base, store, update=2)
    folder = Path(store, "trainings", address)

    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(ran),)

    torch.save(Bomb(), folder / "checkpoint-1" / "optimizer.pt")
    Checkpoints(folder, str(folder)).keep(1)
    with pytest.raises(DamagedArtifact, match="holds something else than tensors"):
        train_prepared(store, address, None, silent)
    assert not ran.exists()


def test_a_base_that_has_changed_since_is_told(base_folder: Path, tmp_path: Path) -> None:
    folder = copytree(base_folder, tmp_path / "base")
    address = prepare(BaseName(model=str(folder)), str(tmp_path / "store")).job.address
    poison(folder, " twice")
    with pytest.raises(DamagedArtifact, match="is not the base model that the training was"):
        train_prepared(str(tmp_path / "store"), address, None, silent)


def test_a_preparation_under_another_address_is_told(base: BaseName, tmp_path: Path) -> None:
    address = prepare(base, str(tmp_path)).job.address
    other = "0" * 32
    os.rename(tmp_path / "trainings" / address, tmp_path / "trainings" / other)
    with pytest.raises(DamagedArtifact, match=f"prepared for the training {address}"):
        train_prepared(str(tmp_path), other, None, silent)


# ---- DPO


def preferences(count: int) -> list[Preference]:
    """Pairs whose better answer is the number twice."""
    return [
        Preference(
            [{"role": "user", "content": f"Say {number} twice"}],
            [{"role": "assistant", "content": f"{number} {number}"}],
            [{"role": "assistant", "content": "Le renard brun"}],
            SourceRow("pairs.jsonl", number),
        )
        for number in range(1, count + 1)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sft", "dpo"),
    [(SFT, DPO), (LORA, DPO.model_copy(update={"lora": LORA.lora, "learning_rate": 1e-2}))],
    ids=["full", "lora"],
)
def test_dpo_moves_the_margin(
    sft: SftRecipe, dpo: DpoRecipe, base: BaseName, tmp_path: Path
) -> None:
    store = str(tmp_path)
    first = trained(base, store, recipe=sft, checkpoint_steps=100)
    second = prepare_dpo(
        first.preparation, preferences(16), [], dpo, Settings(store, checkpoint_steps=100)
    )
    assert second.job.base == {"training": first.address}
    model = train_prepared(store, second.job.address, None, silent)
    margins = [point.values["rewards/margins"] for point in model.outcome.curve]
    assert margins[0] == pytest.approx(0, abs=1e-5), "the reference is the model after SFT"
    assert margins[-1] > 0.05
    assert model.is_adapter == (sft.lora is not None)
    assert not any("ref/" in name for name in model.files)
    assert not are_equal(weights(store, model), weights(store, first))


def test_pairs_that_all_exceed_the_window_are_an_error(base: BaseName, tmp_path: Path) -> None:
    narrow = DPO.model_copy(update={"max_length": 20})
    with pytest.raises(InputError, match="none of 3 preference pairs fits the window of 20 tokens"):
        prepare_dpo(
            prepare(base, str(tmp_path)), preferences(3), [], narrow, Settings(str(tmp_path))
        )


# ---- faults


def test_a_loss_that_is_no_number_ends_it(base_folder: Path, tmp_path: Path, offline: None) -> None:
    folder = copytree(base_folder, tmp_path / "base")
    poison(folder, " twice")
    with pytest.raises(TrainingFailed, match=r"of update 1 of 6 is nan; lower the learning rate"):
        trained(BaseName(model=str(folder)), str(tmp_path / "store"))


def test_a_quantized_base_is_told(base_folder: Path, tmp_path: Path, offline: None) -> None:
    """As a GGUF file that was saved as a checkpoint: the weights are plain, the mark has stayed."""
    folder = copytree(base_folder, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gguf"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="its weights are quantized, and cannot be trained"):
        trained(BaseName(model=str(folder)), str(tmp_path / "store"))


def test_out_of_memory_halves_the_rows_of_a_device_and_keeps_the_batch(
    base: BaseName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows at once are four updates of half the rows each: the sum is the same but for
    rounding."""
    given: list[int] = []
    original = trainer._train

    def without_memory(workplace: Any, rows: int, processes: int, report: Any) -> Any:
        given.append(rows)
        if rows > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(workplace, rows, processes, report)

    whole = trained(base, str(tmp_path / "whole"), checkpoint_steps=100)
    monkeypatch.setattr(trainer, "_train", without_memory)
    halved = trained(base, str(tmp_path / "halved"), checkpoint_steps=100)
    assert given == [4, 2]
    assert halved.outcome.device_batch_size == 2
    assert halved.address == whole.address
    assert [point.values["loss"] for point in halved.outcome.curve][:2] == pytest.approx(
        [point.values["loss"] for point in whole.outcome.curve][:2], rel=0.05
    )


def test_out_of_memory_with_one_row_is_an_error(
    base: BaseName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(*_: Any) -> Any:
        raise OutOfMemory(1)

    monkeypatch.setattr(launch, "_run_here", without_memory)
    with pytest.raises(TrainingFailed, match="with a single row; lower max_length"):
        trained(base, str(tmp_path))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0"),
        RuntimeError("Error while serializing: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told(
    error: Exception, base: BaseName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_in_vain(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(trainer, "_train", write_in_vain)
    with pytest.raises(StorageError, match="the disk is full; make room and run again"):
        trained(base, str(tmp_path))


def test_a_batch_is_shared_evenly() -> None:
    recipe = SFT.model_copy(update={"batch_size": 12})
    assert device_batch_size(recipe, 4, processes=1) == 4
    assert device_batch_size(recipe, 5, processes=1) == 4
    assert device_batch_size(recipe, 4, processes=2) == 3
    assert device_batch_size(recipe, 99, processes=3) == 4
    with pytest.raises(UsageError, match="batch_size = 12: cannot be shared by 5 processes"):
        device_batch_size(recipe, 4, processes=5)


# ---- accelerate


@pytest.mark.slow
def test_accelerate_launches_it(base: BaseName, tmp_path: Path) -> None:
    """Two processes share each batch: the sum is the same but for rounding."""
    store = str(tmp_path / "store")
    address = prepare(base, store, checkpoint_steps=100).job.address
    reported: list[int] = []
    launcher = "--multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0"

    def note(step: int, steps: int, values: dict[str, float]) -> None:
        reported.append(step)

    model = train_prepared(store, address, launcher, note)
    assert model.outcome.processes == 2
    assert reported == [1, 2, 3, 4, 5, 6]
    alone = trained(base, str(tmp_path / "alone"), checkpoint_steps=100)
    assert model.outcome.curve[0].values["loss"] == pytest.approx(
        alone.outcome.curve[0].values["loss"], rel=0.05
    )


@pytest.mark.slow
def test_a_launcher_with_a_mistake_is_told(base: BaseName, tmp_path: Path) -> None:
    address = prepare(base, str(tmp_path)).job.address
    with pytest.raises(ComputeError, match=r"accelerate ended without a result: .*--nonsense"):
        train_prepared(str(tmp_path), address, "--nonsense", silent)


def test_a_model_that_is_there_is_not_trained_again(
    base: BaseName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(base, str(tmp_path), checkpoint_steps=100)
    monkeypatch.setattr(launch, "_run_here", None)
    assert trained(base, str(tmp_path)) == model


def test_what_the_address_depends_on(base: BaseName, tmp_path: Path) -> None:
    def address(**options: Any) -> str:
        return prepare(base, str(tmp_path), **options).job.address

    same = [address(), address(checkpoint_steps=7)]
    other = [
        address(rows=19),
        address(seed=1),
        address(recipe=LORA),
        address(recipe=SFT.model_copy(update={"learning_rate": 2e-2})),
    ]
    assert len(set(same)) == 1
    assert len({*same, *other}) == 5
