"""SFT and DPO by TRL, from the last checkpoint on. Imports TRL: import it when needed."""

from __future__ import annotations

import errno
import gc
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import Dataset
from datasets.utils import logging as datasets_logging
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, TrainingFailed
from deita_tasks.finetuning.base_model import load_model, lora_config
from deita_tasks.finetuning.checkpoints import PICKLED, Checkpoints
from deita_tasks.finetuning.examples import SCHEMA
from deita_tasks.finetuning.job import (
    DATA_FILE,
    MODEL_FOLDER,
    TOKENIZER_FOLDER,
    CurvePoint,
    Outcome,
    OutOfMemory,
    Workplace,
    device_batch_size,
)
from deita_tasks.finetuning.launch import Report
from deita_tasks.models.quiet import quiet_loading
from deita_tasks.models.stopping import raise_if_stopped
from deita_tasks.recipes import DpoRecipe
from deita_tasks.storage.failures import as_storage_error, storage_errors

log = logging.getLogger(__name__)

CURVE_VALUES = (*("loss", "learning_rate", "grad_norm"), *("rewards/margins", "rewards/accuracies"))


class Watch(TrainerCallback):  # type: ignore[misc]
    """Follows a training: keeps its checkpoints, reports its loss, ends it if that is no number."""

    def __init__(self, checkpoints: Checkpoints, report: Report) -> None:
        self.checkpoints = checkpoints
        self.report = report

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Let a run that ends stop between two batches of one update."""
        raise_if_stopped()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Report an update, from the main process alone.

        Raises TrainingFailed, in every process, for a loss or gradient norm that is not finite.
        """
        values = curve_values(logs or {})
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values.get(name, 0.0)):
                raise TrainingFailed(
                    f"the {name} of update {state.global_step} of {state.max_steps} is "
                    f"{values[name]}; lower the learning rate, or raise the batch size; the last "
                    "checkpoint was before it"
                )
        if "loss" in values and state.is_world_process_zero:
            self.report(state.global_step, state.max_steps, values)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the checkpoint that all processes have written; then stop if the run ends."""
        PartialState().wait_for_everyone()  # each process writes a part
        if state.is_world_process_zero:
            self.checkpoints.keep(state.global_step)
        PartialState().wait_for_everyone()
        raise_if_stopped()


def curve_values(logs: dict[str, Any]) -> dict[str, float]:
    """Return the values of an update that the curve shows.

    Those of CURVE_VALUES that the trainer logged: SFT has no rewards.
    """
    return {name: float(logs[name]) for name in CURVE_VALUES if name in logs}


def train(workplace: Workplace, report: Report) -> Outcome:
    """Train to the end, and leave the model in the folder `model` of the workplace.

    Raises OutOfMemory if a device cannot hold `most_rows`, TrainingFailed if the loss is no number,
    StorageError if a disk is full.
    """
    job = workplace.job
    processes = PartialState(cpu=job.device == "cpu").num_processes
    rows = device_batch_size(job.recipe, workplace.most_rows, processes)
    try:
        with storage_errors(str(workplace.folder)), quiet_loading():
            return _train(workplace, rows, processes, report)
    except (RuntimeError, MemoryError) as error:
        if _is_full_disk(error):
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise as_storage_error(str(workplace.folder), full) or error from error
        if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
            raise
    # Not in `except`: the error's traceback holds the tensors.
    gc.collect()
    clear_device_cache()
    raise OutOfMemory(rows)


def _is_full_disk(error: Exception) -> bool:
    """Return whether torch or safetensors could not write: neither raises an OSError."""
    text = str(error)
    return "No space left" in text or "PytorchStreamWriter failed" in text


def _train(workplace: Workplace, rows: int, processes: int, report: Report) -> Outcome:
    """Train from the last checkpoint on, if there is one, and save the model.

    rows: that a device holds at once. Each process of a launch runs this; only the main one reads
    checkpoints from the store.
    """
    checkpoints = Checkpoints(workplace.folder, workplace.checkpoints)
    datasets_logging.disable_progress_bar()
    trainer = _trainer(workplace, rows, processes)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watch(checkpoints, report))
    last = _shared(checkpoints.restore() if PartialState().is_main_process else None)
    resumed = [int(last.rsplit("-", 1)[1])] if last else []
    if resumed:
        log.info("going on from update %d", resumed[0])
    with _readable(last):
        trainer.train(resume_from_checkpoint=last)
    _save(trainer, str(workplace.folder / MODEL_FOLDER))
    curve = [
        CurvePoint(step=int(entry["step"]), values=curve_values(entry))
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    return Outcome(device_batch_size=rows, processes=processes, resumed=resumed, curve=curve)


@contextmanager
def _readable(checkpoint: str | None) -> Iterator[None]:
    """Raise DamagedArtifact for a checkpoint that holds more than tensors; it is not run."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise DamagedArtifact(
            f"{checkpoint}: holds something else than tensors, and is not loaded; remove it, and "
            "the training goes on without it"
        ) from error


def _shared(path: Any) -> str | None:
    """Return the main process's path in all processes."""
    from accelerate.utils import broadcast_object_list

    values = [None if path is None else str(path)]
    if PartialState().num_processes > 1:
        broadcast_object_list(values)
    return values[0]


def _save(trainer: Any, folder: str) -> None:
    """Save model and tokenizer, without what only TRL's reference adapter and runs need."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "peft_config") and "ref" in model.peft_config:
        model.delete_adapter("ref")
    trainer.save_model(folder)
    for name in (PICKLED, "README.md"):
        path = os.path.join(folder, name)
        if PartialState().is_main_process and os.path.exists(path):
            os.remove(path)


def _trainer(workplace: Workplace, rows: int, processes: int) -> Any:
    """Return TRL's trainer for the job: DPO for a DpoRecipe, else SFT.

    SFT rows are cut to the window before, so SFTConfig gets no length.
    """
    job = workplace.job
    tokenizer = AutoTokenizer.from_pretrained(
        str(workplace.folder / TOKENIZER_FOLDER), trust_remote_code=False
    )
    # An adapter's own weights are float32 whatever its base's are.
    is_short = job.recipe.low_precision and job.recipe.lora is not None
    dtype = "bfloat16" if is_short else "float32"
    model = load_model(workplace.model, workplace.revision, dtype)
    has_adapter = hasattr(model, "peft_config")
    lora = None if job.recipe.lora is None or has_adapter else lora_config(job.recipe.lora)
    options = _options(workplace, rows, processes)
    data = _read_data(workplace)
    common = {"train_dataset": data, "processing_class": tokenizer, "peft_config": lora}
    if isinstance(job.recipe, DpoRecipe):
        args: Any = DPOConfig(
            **options,
            beta=job.recipe.beta,
            max_length=job.recipe.max_length,
            model_init_kwargs=None,
        )
        return DPOTrainer(model, args=args, **common)
    return SFTTrainer(model, args=SFTConfig(**options, max_length=None), **common)


def _options(workplace: Workplace, rows: int, processes: int) -> dict[str, Any]:
    """Return the trainer's arguments. Every update is logged: a loss that is no number ends it."""
    job = workplace.job
    recipe = job.recipe
    on_cpu = job.device == "cpu"
    return {
        "output_dir": str(workplace.folder),
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": recipe.warmup_ratio,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": recipe.batch_size // (rows * processes),
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "bf16": recipe.low_precision,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "seed": job.seed,
        "data_seed": job.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": job.save_steps,
        "report_to": "none",
        "disable_tqdm": True,
    }


def _read_data(workplace: Workplace) -> Any:
    """Return the rows as a Dataset: tokens and labels for SFT, pairs of messages for DPO."""
    table = storage.read_table(str(workplace.folder / DATA_FILE))
    if table.schema.equals(SCHEMA):
        return Dataset.from_dict(table.drop_columns(["id"]).to_pydict())
    return Dataset.from_list(table.to_pylist())
