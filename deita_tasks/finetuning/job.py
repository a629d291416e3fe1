"""One training: what it depends on, the address of its result, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt

from deita_tasks import storage
from deita_tasks.errors import UsageError
from deita_tasks.finetuning.examples import Survey
from deita_tasks.recipes import DpoRecipe, Recipe, SftRecipe
from deita_tasks.storage import FileInfo
from deita_tasks.strict_json import JsonRecord

VERSION = 1  # raise it to train everything anew
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")
FEW_UPDATES = 10
CHECKPOINTS = 10  # of a training, unless the parameters say how often

MODEL_FILE = "model.json"
PREPARATION_FILE = "preparation.json"
LEFT_OUT_FILE = "left_out.csv"
ADAPTER_FILE = "adapter_config.json"
DATA_FILE = "data.parquet"
TOKENIZER_FOLDER = "tokenizer"
MODEL_FOLDER = "model"


def library_versions() -> dict[str, str]:
    """Return the version of each library that trains.

    Another version may compute other weights, so these are part of a training's address.
    """
    return {name: metadata.version(name) for name in LIBRARIES}


class Job(JsonRecord):
    """A training before it begins.

    base: identity of the model that it starts from: hub id and commit, a digest of its files, or
    the address of an earlier training. data: digest of its tokens. rows: of the data. template:
    digest of the chat template. device: cpu or cuda.
    """

    base: dict[str, str]
    data: str
    rows: int = Field(ge=1)
    template: str
    recipe: Annotated[SftRecipe | DpoRecipe, Field(discriminator="stage")]
    seed: NonNegativeInt
    device: str
    checkpoint_steps: int | None = Field(None, ge=1)

    @property
    def address(self) -> str:
        """The digest of everything that the weights depend on."""
        fields = self.model_dump(mode="json", exclude={"checkpoint_steps", "recipe"})
        recipe = self.recipe.model_dump(mode="json", exclude={"source"})
        versions = library_versions()
        return storage.digest_of(
            {**fields, "recipe": recipe, "versions": versions, "version": VERSION}
        )

    @property
    def steps(self) -> int:
        """The number of updates."""
        in_an_epoch = math.ceil(self.rows / self.recipe.batch_size)
        return math.ceil(in_an_epoch * self.recipe.epochs)

    @property
    def warnings(self) -> list[str]:
        """What is odd about the training, a line each."""
        if self.steps >= FEW_UPDATES:
            return []
        return [
            f"only {self.steps} updates, the first of them at the rate 0 of the warm-up; lower "
            "batch_size or raise epochs"
        ]

    @property
    def save_steps(self) -> int:
        """Updates between two checkpoints."""
        return self.checkpoint_steps or max(1, math.ceil(self.steps / CHECKPOINTS))


def device_batch_size(recipe: Recipe, most: int, processes: int) -> int:
    """Return the rows that a device holds at once: at most `most`, so that the batch divides.

    Raises UsageError if the batch cannot be shared by the processes.
    """
    if recipe.batch_size % processes:
        raise UsageError(
            f"batch_size = {recipe.batch_size}: cannot be shared by {processes} processes; choose "
            "a multiple"
        )
    share = recipe.batch_size // processes
    return max(size for size in range(1, min(most, share) + 1) if share % size == 0)


class Preparation(JsonRecord):
    """A job whose data lie in the store, ready to be trained by whoever reaches it.

    model, revision: where the base model is; a folder of the store for one that was trained before.
    base_name: of the model at the very beginning. survey: of SFT's rows; None for DPO. remedies:
    what was missing and what stands in. left_out: rows that are not trained on, by reason.
    """

    job: Job
    model: str
    revision: str | None
    base_name: str
    chat_template: str
    remedies: list[str]
    survey: Survey | None
    left_out: dict[str, NonNegativeInt]
    files: dict[str, FileInfo]


class CurvePoint(JsonRecord):
    """An update of a training. values: loss, learning_rate, grad_norm; for DPO the rewards too."""

    step: NonNegativeInt
    values: dict[str, float]


class Outcome(JsonRecord):
    """How a training went.

    device_batch_size: rows that a device held at once at the end, fewer than the recipe's if memory
    ran out. resumed: the updates from which it went on after an interruption.
    """

    device_batch_size: NonNegativeInt
    processes: NonNegativeInt
    resumed: list[NonNegativeInt]
    curve: list[CurvePoint]

    @property
    def losses(self) -> list[float]:
        """The loss of each update."""
        return [point.values["loss"] for point in self.curve]


class TrainedModel(JsonRecord):
    """model.json: a finished training in the store. files: of the model, all that a user loads."""

    preparation: Preparation
    outcome: Outcome
    versions: dict[str, str]
    files: dict[str, FileInfo]

    @property
    def address(self) -> str:
        """The address of its training."""
        return self.preparation.job.address

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter, to be loaded on top of its base model."""
        return ADAPTER_FILE in self.files


class OutOfMemory(Exception):
    """A device could not hold the rows of a batch. rows: how many it was given."""

    def __init__(self, rows: int) -> None:
        super().__init__(f"out of memory with {rows} rows")
        self.rows = rows


class Workplace(JsonRecord):
    """Where a training works.

    folder: of this machine; holds the data, the tokenizer and the trainer's checkpoints.
    checkpoints: where the store keeps these; the same folder if the store is on this machine.
    model: folder or hub id of the model to start from. most_rows: that a device may hold at once.
    """

    job: Job
    folder: Path
    checkpoints: str
    model: str
    revision: str | None
    most_rows: int = Field(ge=1)


def relative_files(folder: Path) -> list[str]:
    """Return the files below `folder`, as paths from there.

    Sorted, with slashes on every system.
    """
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def copy_files(source: str, target: str, names: Sequence[str]) -> None:
    """Copy files from one folder to another; each appears whole or not at all."""
    for name in names:
        with (
            storage.open_read(storage.join(source, name)) as reading,
            storage.write_atomic(storage.join(target, name)) as writing,
        ):
            while block := reading.read(1 << 20):
                writing.write(block)
