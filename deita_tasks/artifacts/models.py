"""What the store says of a trained model: model.json, as far as a listing needs it.

finetuning.job.TrainedModel is the whole record.
"""

from __future__ import annotations

from pydantic import ConfigDict, NonNegativeInt

from deita_tasks import storage
from deita_tasks.storage import FileInfo
from deita_tasks.strict_json import JsonRecord

MODEL_FILE = "model.json"


class _Outline(JsonRecord):
    """Base of the records here: ignores what a listing does not need, whatever its version."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class RecipeOutline(_Outline):
    """How a model was trained. stage: sft or dpo."""

    stage: str


class JobOutline(_Outline):
    """What a model was trained on. rows: of the data."""

    recipe: RecipeOutline
    rows: NonNegativeInt
    seed: int


class PreparationOutline(_Outline):
    """The base model and the job."""

    base_name: str
    job: JobOutline


class ModelOutline(_Outline):
    """model.json. files: of the model."""

    preparation: PreparationOutline
    files: dict[str, FileInfo]

    @property
    def stands_for(self) -> str:
        """What the model is, in a few words."""
        job = self.preparation.job
        return f"{self.preparation.base_name} after {job.recipe.stage}, seed {job.seed}"


def read_outline(uri: str) -> ModelOutline:
    """Return the model.json under `uri`. Raises MissingFile or DamagedArtifact."""
    return storage.read_record(storage.join(uri, MODEL_FILE), ModelOutline)
