"""Train in this process, or in the processes that accelerate starts on several devices."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from deita_tasks import errors, storage
from deita_tasks.errors import ComputeError, DeitaError, TrainingFailed
from deita_tasks.finetuning.job import Outcome, OutOfMemory, Workplace
from deita_tasks.models.stopping import STOP_INTERVAL, raise_if_stopped
from deita_tasks.strict_json import JsonRecord

log = logging.getLogger(__name__)

# The number of updates done, of all, and the values of the last one.
Report = Callable[[int, int, dict[str, float]], None]

WORKPLACE = "workplace.json"
OUTCOME = "outcome.json"
FAILURE = "failure.json"
PROGRESS = "progress.jsonl"
LOG = "launch.log"
LOG_CHARACTERS = 500  # of the log's end, in an error


class Failure(JsonRecord):
    """Why a launched training ended early. kind: name of the error. rows: of an OutOfMemory."""

    kind: str
    message: str
    rows: int = 0


def run_training(workplace: Workplace, launcher: str | None, report: Report) -> Outcome:
    """Train to the end; the model is left in the workplace.

    launcher: options of `accelerate launch`, for several devices. If a device runs out of memory,
    it holds half as many rows from then on, and the batch stays what it is. Raises TrainingFailed
    if a single row is too much.
    """
    while True:
        try:
            if launcher is None:
                return _run_here(workplace, report)
            return _run_launched(workplace, launcher, report)
        except OutOfMemory as error:
            if error.rows == 1:
                raise TrainingFailed(
                    "out of memory with a single row; lower max_length, take the recipe "
                    "lora_24gb, or share the model between devices by --launcher"
                ) from error
            half = error.rows // 2
            log.warning("out of memory with %d rows at once: going on with %d", error.rows, half)
            workplace = workplace.model_copy(update={"most_rows": half})


def _run_here(workplace: Workplace, report: Report) -> Outcome:
    """Train in this process. TRL is imported here: it takes seconds, and nothing else needs it."""
    from deita_tasks.finetuning.trainer import train

    return train(workplace, report)


def _run_launched(workplace: Workplace, launcher: str, report: Report) -> Outcome:
    """Train in processes that accelerate starts; return the outcome that the first of them writes.

    Raises what ended the training, as `_failure` reads it from what they left.
    """
    with storage.scratch_folder() as scratch:
        folder = Path(scratch)
        file = str(folder / WORKPLACE)
        storage.write_record(file, workplace)
        command = [sys.executable, "-m", "accelerate.commands.launch", *shlex.split(launcher)]
        command += ["-m", "deita_tasks.finetuning.worker", file]
        _wait(command, folder, report)
        if (folder / OUTCOME).exists():
            return storage.read_record(str(folder / OUTCOME), Outcome)
        raise _failure(folder)


def _wait(command: list[str], folder: Path, report: Report) -> None:
    """Run a command to its end; report what it writes to PROGRESS. It ends when the run stops."""
    with (folder / LOG).open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        seen = 0
        try:
            while process.poll() is None:
                raise_if_stopped()
                try:
                    process.wait(STOP_INTERVAL)
                except subprocess.TimeoutExpired:
                    seen = _report_news(folder / PROGRESS, seen, report)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)  # accelerate and all that it started
                process.wait()
    _report_news(folder / PROGRESS, seen, report)


def _report_news(path: Path, seen: int, report: Report) -> int:
    """Report the lines after the first `seen`; return how many there are."""
    lines = list(_complete_lines(path))
    for line in lines[seen:]:
        step, steps, values = json.loads(line)
        report(step, steps, values)
    return len(lines)


def _complete_lines(path: Path) -> Iterator[str]:
    """Yield the lines that have their ends: the last may still be on its way to the file."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield line


def _failure(folder: Path) -> Exception:
    """Return why a launched training left no outcome."""
    if not (folder / FAILURE).exists():
        tail = (folder / LOG).read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
        return ComputeError(
            f"accelerate ended without a result: {' '.join(tail.split())}; check the launcher's "
            "options"
        )
    failure = storage.read_record(str(folder / FAILURE), Failure)
    if failure.kind == OutOfMemory.__name__:
        return OutOfMemory(failure.rows)
    kind = getattr(errors, failure.kind, ComputeError)
    is_ours = isinstance(kind, type) and issubclass(kind, DeitaError)
    return kind(failure.message) if is_ours else ComputeError(failure.message)
