"""Train a model: prepare its data, train, write the result. A killed training goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from prefect import get_run_logger, task
from pydantic import JsonValue

from deita_tasks import storage
from deita_tasks.artifacts.claims import claimed
from deita_tasks.config import (
    Group,
    Output,
    Preferences,
    Runtime,
    Training,
    TrainingData,
    TrainingOptions,
)
from deita_tasks.errors import TooManyBadRows
from deita_tasks.filtering.decontamination import OverlapRule
from deita_tasks.finetuning import require_packages
from deita_tasks.finetuning.examples import Survey, build_training_set, encode_row
from deita_tasks.finetuning.job import Preparation, TrainedModel
from deita_tasks.finetuning.launch import Report
from deita_tasks.finetuning.options import base_of, dpo_recipe, sft_recipe
from deita_tasks.finetuning.trained import (
    Settings,
    is_trained,
    model_uri,
    prepare_dpo,
    prepare_sft,
    read_model,
    train_prepared,
    training_uri,
)
from deita_tasks.loading.evaluation_rows import find_evaluation_files
from deita_tasks.manifest import InputFile
from deita_tasks.models.chat_tokenizer import Tokenization, load_tokenizer
from deita_tasks.models.hardware import require_device
from deita_tasks.models.stopping import stopped_by
from deita_tasks.plan import check_apart, check_output, check_outside
from deita_tasks.progress import Pace
from deita_tasks.results.alignment import AlignedModel, write_alignment
from deita_tasks.results.evaluation_texts import read_evaluation_texts
from deita_tasks.results.preference_files import read_preferences
from deita_tasks.results.training_data import (
    CONTAMINATED,
    FoundData,
    SelectionParent,
    find_training_data,
)
from deita_tasks.tasks.caching import CACHED, call_cached
from deita_tasks.tasks.device_slots import device_slot, visible_gpus
from deita_tasks.tasks.model_cache import raise_if_run_ends
from deita_tasks.tasks.run_progress import shown_pace
from deita_tasks.tasks.ui_artifacts import show_files, show_table

CLAIM_FILE = "claim.json"
TABLE_ROWS = 100  # of the loss curve in the UI


def check_alignment(
    source: TrainingData, training: Training, output: Output, options: Runtime
) -> FoundData:
    """Return the data to train on. Raises every error that shows before any work, in one line."""
    require_packages("align")
    found = find_training_data(source.input, source.format)
    if source.decontaminate:
        files = find_evaluation_files(source.decontaminate).files
        found.evaluation = read_evaluation_texts(sorted(files), OverlapRule(), [])
    check_outside(output.output, options.store)
    check_output(output, found.files)
    check_apart(source.input, output.output)
    check_apart(source.input, options.store)
    storage.check_writable(options.store)
    require_device(options.device)
    base_of(training)
    return found


def prepare_training(
    found: FoundData, source: TrainingData, training: Training, options: Runtime
) -> Preparation:
    """Put the tokens of the data into the store; log what the window cuts.

    Raises TooManyBadRows if a smaller share of the rows than `min_good_fraction` can be trained on.
    """
    base = base_of(training)
    recipe = sft_recipe(training)
    tokenization = load_tokenizer(base)
    rows = (encode_row(row, tokenization.tokenizer) for row in found.rows())
    data = build_training_set(rows, recipe.max_length)
    _log_survey(tokenization, data.survey)
    check_left_out(data.survey, source.min_good_fraction)
    preparation = prepare_sft(base, data, tokenization, recipe, settings_of(training, options))
    for line in preparation.job.warnings:
        get_run_logger().warning("%s", line)
    return preparation


def settings_of(training: TrainingOptions, options: Runtime) -> Settings:
    """Return where and how trainings of a run work.

    Without the launcher, which is no part of a training's address.
    """
    return Settings(
        store=storage.absolute(options.store),
        seed=training.seed,
        device=options.device,
        checkpoint_steps=training.checkpoint_steps,
    )


def _log_survey(tokenization: Tokenization, survey: Survey) -> None:
    """Log the chat template, what stands in for what it lacks, and what the window cuts."""
    logger = get_run_logger()
    logger.info("chat template: %s", tokenization.template)
    for line in (*tokenization.remedies, *survey.sentences()):
        logger.info("%s", line)


def check_left_out(survey: Survey, min_good_fraction: float) -> None:
    """Raise TooManyBadRows if a smaller share of the rows can be trained on.

    A row that repeats an evaluation text counts neither as good nor as bad.
    """
    contaminated = survey.left_out.get(CONTAMINATED, 0)  # neither good nor bad
    left_out = sum(survey.left_out.values()) - contaminated
    rows = survey.rows + left_out
    if survey.rows < min_good_fraction * rows:
        reasons = "; ".join(
            f"{count:,} rows: {reason}" for reason, count in survey.left_out.items()
        )
        raise TooManyBadRows(
            f"{survey.rows:,} of {rows:,} rows can be trained on, less than the required "
            f"{min_good_fraction:.0%}: {reasons}; mend them, raise max_length, or lower "
            "min_good_fraction"
        )


def prepare_preferences(
    base: Preparation, training: Training, preferences: Preferences, options: Runtime
) -> Preparation:
    """Put the preference pairs of a DPO that follows `base` into the store.

    Warns of pairs that are left out, by reason. Raises InputError if no pair fits the window.
    """
    pairs, unread = read_preferences(preferences.preferences or [])
    recipe = dpo_recipe(training, preferences)
    preparation = prepare_dpo(base, pairs, unread, recipe, settings_of(training, options))
    for reason, count in preparation.left_out.items():
        get_run_logger().warning("%s preference pairs are left out: %s", f"{count:,}", reason)
    return preparation


def train(
    preparation: Preparation, launcher: str | None, options: Runtime, title: str = ""
) -> TrainedModel:
    """Return the model of a training; trains only if the store does not have it.

    title: of the progress in the UI, by default the stage, such as "sft".
    """
    store = storage.absolute(options.store)
    uri = model_uri(store, preparation.job.address)
    title = title or preparation.job.recipe.stage
    call_cached(
        train_model, options, is_trained(uri), uri, title, store, launcher, options.device_slots
    )
    return read_model(uri)


@task(name="train-model", task_run_name="{title}", **CACHED)
def train_model(
    key: str, title: str, store: str, launcher: str | None, slots: int | None
) -> dict[str, JsonValue]:
    """Train what was prepared, from its last checkpoint on; write the artifact `key`.

    Returns {"model": its address}; the weights stay in the store. Holds a slot of each device that
    it computes on, and waits for another run that trains the same model.
    """
    address = key.rsplit("/", 1)[-1]
    claim = storage.join(training_uri(store, address), CLAIM_FILE)
    if is_trained(key):
        return {"model": address}
    with (
        stopped_by(raise_if_run_ends),
        claimed(claim),
        device_slot(_devices(launcher), slots),
        _shown(title) as report,
    ):
        model = train_prepared(store, address, launcher, report)
    _show_curve(title, model)
    return {"model": address}


def _devices(launcher: str | None) -> list[str]:
    """Return the devices that a training computes on, as `device_slot` names them."""
    gpus = [f"cuda-{name}" for name in visible_gpus()]
    if not gpus:
        return ["cpu"]
    return gpus if launcher else gpus[:1]


@contextmanager
def _shown(title: str) -> Iterator[Report]:
    """Give a function that shows the progress of a training: on a terminal, and in the UI."""
    pace = Pace(None, unit="updates")
    with shown_pace(title, pace, "training-progress") as shown:

        def report(step: int, steps: int, values: dict[str, float]) -> None:
            """Show that `step` of `steps` updates are done, and the loss of the last one.

            The total is known from the first call on: the trainer derives it from its data.
            """
            if pace.total is None:
                pace.begin(steps, step - 1)  # what a killed training has done before
            shown.update(step, f", loss {values['loss']:.4f}")

        yield report


def _show_curve(title: str, model: TrainedModel) -> None:
    """Show the curve as a table of at most TABLE_ROWS lines."""
    curve = model.outcome.curve
    step = max(1, -(-len(curve) // TABLE_ROWS))
    rows = [{"update": point.step, **point.values} for point in curve[::step]]
    show_table(rows, "training-curve", f"{title}: loss by update")


def export_model(
    models: Sequence[TrainedModel],
    found: FoundData,
    output: str,
    options: Runtime,
    groups: Mapping[str, Group],
) -> AlignedModel:
    """Write a trained model to its output folder. groups: the flow's parameters by name.

    models: the stages of the training in order, SFT and then DPO; the last is the one to use.
    """
    written = write_model_output(
        [model.address for model in models],
        storage.absolute(options.store),
        output,
        [parent.to_dict() for parent in found.parents],
        [file.to_dict() for file in found.inputs],
        {name: group.model_dump(mode="json") for name, group in groups.items()},
    )
    aligned = AlignedModel.model_validate(written)
    show_files(output, aligned.manifest.outputs)
    return aligned


@task(name="export-model", task_run_name="export", result_serializer="json")
def write_model_output(
    addresses: Sequence[str],
    store: str,
    output: str,
    parents: Sequence[Mapping[str, JsonValue]],
    inputs: Sequence[Mapping[str, JsonValue]],
    parameters: Mapping[str, JsonValue],
) -> dict[str, JsonValue]:
    """Write a model with its card, its curves and its manifest; return it."""
    aligned = write_alignment(
        [read_model(model_uri(store, address)) for address in addresses],
        store,
        output,
        [SelectionParent.model_validate(parent) for parent in parents],
        [InputFile.model_validate(file) for file in inputs],
        dict(parameters),
    )
    return aligned.to_dict()
