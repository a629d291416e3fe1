"""Write a trained model to its output folder, with a card and a manifest that name its parents."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from pydantic import JsonValue, NonNegativeInt

from deita_tasks import storage
from deita_tasks.finetuning.examples import Survey
from deita_tasks.finetuning.job import (
    LEFT_OUT_FILE,
    LIBRARIES,
    CurvePoint,
    TrainedModel,
    copy_files,
)
from deita_tasks.finetuning.trained import model_uri
from deita_tasks.manifest import PACKAGES, InputFile, ResultManifest, package_versions
from deita_tasks.results.publish import publish_result
from deita_tasks.results.records import ResultRecord
from deita_tasks.results.training_data import SelectionParent
from deita_tasks.strict_json import JsonRecord
from deita_tasks.templating import escape_markdown, template_environment

CARD_FILE = "README.md"


class TrainingFacts(JsonRecord):
    """What a manifest says of one stage.

    base: identity of the model that it started from. survey: what the window left; None for DPO.
    """

    stage: str
    address: str
    base: dict[str, str]
    recipe: dict[str, JsonValue]
    seed: NonNegativeInt
    rows: NonNegativeInt
    updates: NonNegativeInt
    first_loss: float | None
    last_loss: float | None
    device: str
    device_batch_size: NonNegativeInt
    processes: NonNegativeInt
    resumed: list[NonNegativeInt]
    survey: Survey | None
    left_out: dict[str, NonNegativeInt]
    versions: dict[str, str]

    @classmethod
    def of(cls, model: TrainedModel) -> TrainingFacts:
        """Return the facts of a training. A loss is None if there was no update."""
        preparation, outcome = model.preparation, model.outcome
        job = preparation.job
        losses = outcome.losses
        return cls(
            stage=job.recipe.stage,
            address=model.address,
            base=job.base,
            recipe=job.recipe.model_dump(mode="json"),
            seed=job.seed,
            rows=job.rows,
            updates=job.steps,
            first_loss=losses[0] if losses else None,
            last_loss=losses[-1] if losses else None,
            device=job.device,
            device_batch_size=outcome.device_batch_size,
            processes=outcome.processes,
            resumed=outcome.resumed,
            survey=preparation.survey,
            left_out=preparation.left_out,
            versions=model.versions,
        )


class AlignManifest(ResultManifest):
    """manifest.json of a trained model.

    parents: the selections that its data come from. stages: SFT, and DPO if there was one.
    """

    base: str
    base_identity: dict[str, str]
    chat_template: str
    parents: list[SelectionParent]
    stages: list[TrainingFacts]
    remedies: list[str]
    is_adapter: bool


class AlignedModel(ResultRecord):
    """A trained model in its output folder. Subscripts read the manifest's fields."""

    uri: str
    manifest: AlignManifest

    def to_json_fields(self) -> dict[str, JsonValue]:
        """Return the fields of the manifest."""
        return self.manifest.to_dict()


def write_alignment(
    models: Sequence[TrainedModel],
    store: str,
    output: str,
    parents: Sequence[SelectionParent],
    inputs: Sequence[InputFile],
    parameters: Mapping[str, JsonValue],
) -> AlignedModel:
    """Write the last of `models` to the folder `output`, whole or not at all.

    models: a stage each, in the order of training; each started from the one before it.
    """
    first, last = models[0].preparation, models[-1]
    stages = [TrainingFacts.of(model) for model in models]
    manifest = AlignManifest(
        parameters=dict(parameters),
        fingerprints={stage.stage: stage.address for stage in stages},
        inputs=list(inputs),
        versions=package_versions((*PACKAGES, *LIBRARIES)),
        base=first.base_name,
        base_identity=first.job.base,
        chat_template=first.chat_template,
        parents=list(parents),
        stages=stages,
        remedies=[*first.remedies, *first.job.warnings],
        is_adapter=last.is_adapter,
    )
    write = partial(_write_files, models=models, store=store, manifest=manifest)
    return AlignedModel(uri=output, manifest=publish_result(output, manifest, write))


def _write_files(
    folder: Path, models: Sequence[TrainedModel], store: str, manifest: AlignManifest
) -> None:
    """Write the last model, and for every stage its left-out rows and its curve.

    The last model alone is written: it contains what the stages before it learned.
    """
    last = models[-1]
    names = [name for name in last.files if name != LEFT_OUT_FILE]
    copy_files(model_uri(store, last.address), str(folder), names)
    for model in models:
        stage = model.preparation.job.recipe.stage
        left_out = storage.join(model_uri(store, model.address), LEFT_OUT_FILE)
        with storage.open_read(left_out) as file:
            (folder / f"{stage}_{LEFT_OUT_FILE}").write_bytes(file.read())
        write_curve(folder / f"{stage}_curve.csv", model.outcome.curve)
    (folder / CARD_FILE).write_text(render_card(manifest), encoding="utf-8")


def write_curve(path: Path, curve: Sequence[CurvePoint]) -> None:
    """Write a CSV with a line for every update; a value that an update does not have is empty."""
    names = list(dict.fromkeys(name for point in curve for name in point.values))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["update", *names])
        for point in curve:
            writer.writerow([point.step, *(point.values.get(name, "") for name in names)])


def render_card(manifest: AlignManifest) -> str:
    """Return README.md of a model: what the hub and transformers read, and what a person asks."""
    front_matter = ModelCardData(
        base_model=manifest.base if "revision" in manifest.base_identity else None,
        library_name="peft" if manifest.is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["deita", "trl", *(stage.stage for stage in manifest.stages)],
    )
    trainings = [
        {"name": stage.stage.upper(), "facts": card_facts(stage)} for stage in manifest.stages
    ]
    names = ", then ".join(stage.stage.upper() for stage in manifest.stages)
    base = escape_markdown(base_label(manifest.base, manifest.base_identity))
    return (
        template_environment("deita_tasks.finetuning")
        .get_template("model_card.md.jinja")
        .render(
            front_matter=front_matter.to_yaml().strip(),
            title=f"{base.rsplit('/', 1)[-1]} aligned",
            adapter=manifest.is_adapter,
            base=base,
            stages=names,
            curves=" and ".join(f"{stage.stage}_curve.csv" for stage in manifest.stages),
            data=_data_lines(manifest),
            trainings=trainings,
            facts=list(trainings[0]["facts"]),
            remedies=[escape_markdown(line) for line in manifest.remedies],
        )
    )


def card_facts(stage: TrainingFacts) -> dict[str, Any]:
    """Return what a card says of a training."""
    recipe: Any = stage.recipe
    lora = recipe["lora"]
    last = "" if stage.last_loss is None else f"{stage.first_loss:.3f} to {stage.last_loss:.3f}"
    return {
        "recipe": escape_markdown(recipe["source"]),
        "rows": f"{stage.rows:,}",
        "left out": f"{sum(stage.left_out.values()):,}",
        "updates": f"{stage.updates:,}",
        "batch size": f"{recipe['batch_size']:,}",
        "learning rate": recipe["learning_rate"],
        "schedule": f"{recipe['schedule']}, warm-up {recipe['warmup_ratio']:g}",
        "window": f"{recipe['max_length']:,} tokens",
        "weights": f"LoRA of rank {lora['rank']}" if lora else "all",
        "seed": stage.seed,
        "loss": last,
    }


def _data_lines(manifest: AlignManifest) -> list[str]:
    """Return the card's lines on the data, as Markdown: selections, then files, then the survey.

    There is no survey line if the first stage has none.
    """
    lines = [
        f"the selection {escape_markdown(parent.version or last_step(parent.uri))} from the pool "
        f"{escape_markdown(last_step(parent.pool))}"
        for parent in manifest.parents
    ]
    lines += [
        f"{escape_markdown(last_step(file.uri))}: {file.rows:,} rows" for file in manifest.inputs
    ]
    survey = manifest.stages[0].survey
    return lines + (
        [] if survey is None else [escape_markdown(line) for line in survey.sentences()]
    )


def base_label(base: str, identity: Mapping[str, str]) -> str:
    """Return a base's hub id, or the name of its folder: a card shows no paths of a machine."""
    return base if "revision" in identity else last_step(base)


def last_step(uri: str) -> str:
    """Return the name of a file or folder."""
    return uri.rstrip("/").rsplit("/", 1)[-1]
