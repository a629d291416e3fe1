"""Prepare a training in the store, train, and keep the model there.

<store>/trainings/<address>/    data, tokenizer and checkpoints, until the training has ended
<store>/models/<address>/       the model; model.json is written last
"""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, InputError, StorageError
from deita_tasks.finetuning.examples import LeftOut, TrainingSet, data_digest, write_examples
from deita_tasks.finetuning.job import (
    DATA_FILE,
    LEFT_OUT_FILE,
    MODEL_FILE,
    MODEL_FOLDER,
    PREPARATION_FILE,
    TOKENIZER_FOLDER,
    Job,
    Preparation,
    TrainedModel,
    Workplace,
    copy_files,
    library_versions,
    relative_files,
)
from deita_tasks.finetuning.launch import Report, run_training
from deita_tasks.finetuning.preferences import Preference, as_rows, encode_preferences
from deita_tasks.models.chat_tokenizer import BaseName, Tokenization, load_tokenizer
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.hardware import choose_device
from deita_tasks.recipes import DpoRecipe, SftRecipe


class Settings(NamedTuple):
    """What a training needs besides base, data and recipe."""

    store: str
    seed: int = 0
    device: str = "auto"
    checkpoint_steps: int | None = None


def model_uri(store: str, address: str) -> str:
    """Return where the model of a training is."""
    return storage.join(store, "models", address)


def training_uri(store: str, address: str) -> str:
    """Return where a training keeps its data and its checkpoints."""
    return storage.join(store, "trainings", address)


def read_model(uri: str) -> TrainedModel:
    """Return the model.json under `uri`. Raises MissingFile or DamagedArtifact."""
    return storage.read_record(storage.join(uri, MODEL_FILE), TrainedModel)


def is_trained(uri: str) -> bool:
    """Return whether a complete, undamaged model lies under `uri`.

    By the sha256 of its files on a local disk, elsewhere by their sizes. A damaged one is no model.
    """
    try:
        return storage.are_same(uri, read_model(uri).files)
    except StorageError:
        return False


def prepare_sft(
    base: BaseName, data: TrainingSet, tokenization: Tokenization, recipe: SftRecipe, to: Settings
) -> Preparation:
    """Put the data of an SFT into the store, unless the model is there already.

    Return what a training needs to begin, its job's address included. Computes nothing with the
    model.
    """
    checkpoint = base.checkpoint()
    job = Job(
        base={name: str(value) for name, value in checkpoint.identity().items()},
        data=data_digest(data.examples),
        rows=len(data.examples),
        template=storage.digest_of(str(tokenization.tokenizer.chat_template)),
        recipe=recipe,
        seed=to.seed,
        device=choose_device(to.device).split(":")[0],
        checkpoint_steps=to.checkpoint_steps,
    )
    preparation = Preparation(
        job=job,
        model=_absolute(checkpoint.location, checkpoint.revision),
        revision=checkpoint.revision,
        base_name=base.model,
        chat_template=tokenization.template,
        remedies=tokenization.remedies,
        survey=data.survey,
        left_out=data.survey.left_out,
        files={},
    )

    def write_data(folder: Path) -> None:
        """Write tokens and labels, which the trainer takes as they are."""
        write_examples(str(folder / DATA_FILE), data.examples)

    return _put(preparation, tokenization, data.left_out, write_data, to.store)


def prepare_dpo(
    base: Preparation,
    preferences: Sequence[Preference],
    unread: Sequence[LeftOut],
    recipe: DpoRecipe,
    to: Settings,
) -> Preparation:
    """Put the data of a DPO that follows the training `base` into the store.

    unread: rows that are no preferences; they are counted with those that the window excludes.
    Raises InputError if no pair fits the window.
    """
    tokenization = load_tokenizer(_base_of(base))
    kept, too_long = _fitting(preferences, tokenization, recipe.max_length)
    left_out = [*unread, *too_long]
    job = Job(
        base={"training": base.job.address},
        data=storage.digest_of(as_rows(kept)),
        rows=len(kept),
        template=base.job.template,
        recipe=recipe,
        seed=to.seed,
        device=base.job.device,
        checkpoint_steps=to.checkpoint_steps,
    )
    preparation = base.model_copy(
        update={
            "job": job,
            "model": model_uri(to.store, base.job.address),
            "revision": None,
            "survey": None,
            "left_out": dict(Counter(row.reason for row in left_out).most_common()),
        }
    )

    def write_data(folder: Path) -> None:
        """Write the pairs as messages: TRL's DPO makes tokens of them itself."""
        storage.write_table(str(folder / DATA_FILE), pa.Table.from_pylist(as_rows(kept)))

    return _put(preparation, tokenization, left_out, write_data, to.store)


def _fitting(
    preferences: Sequence[Preference], tokenization: Tokenization, max_length: int
) -> tuple[list[Preference], list[LeftOut]]:
    """Return the preferences that fit the window, and the others. Raises InputError for none."""
    encoded, too_long = encode_preferences(preferences, tokenization.tokenizer, max_length)
    if not encoded:
        raise InputError(
            f"none of {len(preferences):,} preference pairs fits the window of {max_length:,} "
            "tokens; raise max_length"
        )
    fitting = {pair.id for pair in encoded}
    return [preference for preference in preferences if preference.id in fitting], too_long


def _base_of(preparation: Preparation) -> BaseName:
    """Return where the tokenizer of a DPO comes from: the base model and template of its SFT."""
    return BaseName(
        model=preparation.model,
        revision=preparation.revision,
        chat_template=preparation.chat_template,
    )


def _absolute(location: str, revision: str | None) -> str:
    """Return a folder from the root, for any working directory; a hub id as it is."""
    return location if revision else str(Path(location).absolute())


def _put(
    preparation: Preparation,
    tokenization: Tokenization,
    left_out: Sequence[LeftOut],
    write_data: Callable[[Path], None],
    store: str,
) -> Preparation:
    """Write what a training reads into the store; its preparation.json comes last."""
    uri = training_uri(store, preparation.job.address)
    if is_trained(model_uri(store, preparation.job.address)):
        return preparation
    with storage.scratch_folder() as scratch:
        folder = Path(scratch)
        write_data(folder)
        tokenization.tokenizer.save_pretrained(str(folder / TOKENIZER_FOLDER))
        _write_left_out(folder / LEFT_OUT_FILE, left_out)
        names = relative_files(folder)
        files = {name: storage.describe(str(folder / name)) for name in names}
        copy_files(scratch, uri, names)
    preparation = preparation.model_copy(update={"files": files})
    storage.write_record(storage.join(uri, PREPARATION_FILE), preparation)
    return preparation


def _write_left_out(path: Path, rows: Sequence[LeftOut]) -> None:
    """Write left_out.csv: a line for each row that is not trained on, with its reason."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["source_uri", "source_row", "id", "reason"])
        for row in rows:
            writer.writerow([row.source.uri, row.source.row, row.id, row.reason])


def train_prepared(store: str, address: str, launcher: str | None, report: Report) -> TrainedModel:
    """Train what was prepared under `address`, from its last checkpoint on; keep the model.

    Does nothing if the model is there. Its data and checkpoints are removed at the end.
    """
    target = model_uri(store, address)
    source = training_uri(store, address)
    if is_trained(target):
        storage.remove(source)  # left by a run that was killed at its end
        return read_model(target)
    preparation = _read_preparation(source, address)
    with _workplace(store, source, preparation) as workplace:
        outcome = run_training(workplace, launcher, report)
        folder = workplace.folder / MODEL_FOLDER
        shutil.copy(workplace.folder / LEFT_OUT_FILE, folder / LEFT_OUT_FILE)
        names = relative_files(folder)
        files = {name: storage.describe(str(folder / name)) for name in names}
        copy_files(str(folder), target, names)
    model = TrainedModel(
        preparation=preparation, outcome=outcome, versions=library_versions(), files=files
    )
    storage.write_record(storage.join(target, MODEL_FILE), model)
    storage.remove(source)
    return model


def _read_preparation(uri: str, address: str) -> Preparation:
    """Return what was prepared under `address`.

    Raises DamagedArtifact if it is something else, or if the base model has changed since.
    """
    preparation = storage.read_record(storage.join(uri, PREPARATION_FILE), Preparation)
    job = preparation.job
    if job.address != address:
        raise DamagedArtifact(
            f"{uri}: prepared for the training {job.address}, by other libraries or other data; "
            "run again"
        )
    if "training" in job.base:
        expected = model_uri(uri.rsplit("/", 2)[0], job.base["training"])
        is_same = preparation.model == expected
    else:
        identity = find_checkpoint(preparation.model, preparation.revision).identity()
        is_same = {name: str(value) for name, value in identity.items()} == job.base
    if not is_same:
        raise DamagedArtifact(
            f"{preparation.model}: is not the base model that the training was prepared for; run "
            "again when nothing changes it"
        )
    return preparation


@contextmanager
def _workplace(store: str, source: str, preparation: Preparation) -> Iterator[Workplace]:
    """Give a folder of this machine with all that the training reads: the store's own if it can."""
    with ExitStack() as stack:
        folder = Path(storage.absolute(source))
        if not storage.is_local(source):
            folder = Path(stack.enter_context(storage.scratch_folder()))
            copy_files(source, str(folder), list(preparation.files))
        for name, info in preparation.files.items():
            storage.checked_file(str(folder), name, info)
        model = preparation.model
        if "training" in preparation.job.base:
            model = stack.enter_context(local_model(model))
        yield Workplace(
            job=preparation.job,
            folder=folder,
            checkpoints=source,
            model=model,
            revision=preparation.revision,
            most_rows=preparation.job.recipe.device_batch_size,
        )


@contextmanager
def local_model(uri: str) -> Iterator[str]:
    """Give a folder of this machine with a model of the store, fetched if the store is elsewhere.

    Raises DamagedArtifact if it is not the model that was trained.
    """
    files = read_model(uri).files
    with ExitStack() as stack:
        folder = storage.absolute(uri)
        if not storage.is_local(uri):
            folder = stack.enter_context(storage.scratch_folder())
            copy_files(uri, folder, list(files))
        for name, info in files.items():
            storage.checked_file(folder, name, info)
        yield folder
