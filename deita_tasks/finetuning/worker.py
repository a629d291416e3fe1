"""Train as a program of its own, as accelerate starts it on each device.

python -m accelerate.commands.launch OPTIONS -m deita_tasks.finetuning.worker WORKPLACE.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from accelerate import PartialState

from deita_tasks import storage
from deita_tasks.errors import DeitaError
from deita_tasks.finetuning.job import OutOfMemory, Workplace
from deita_tasks.finetuning.launch import FAILURE, OUTCOME, PROGRESS, Failure
from deita_tasks.finetuning.trainer import train


def main(path: str) -> None:
    """Train in the workplace that the file `path` describes, and leave the outcome beside it."""
    workplace = storage.read_record(path, Workplace)
    folder = Path(path).parent

    def report(step: int, steps: int, values: dict[str, float]) -> None:
        """Append a line of JSON to PROGRESS, which the process that launched this one reads."""
        with (folder / PROGRESS).open("a", encoding="utf-8") as file:
            file.write(json.dumps([step, steps, values]) + "\n")

    try:
        outcome = train(workplace, report)
    except (OutOfMemory, DeitaError) as error:
        failure = Failure(
            kind=type(error).__name__, message=str(error), rows=getattr(error, "rows", 0)
        )
        storage.write_record(str(folder / FAILURE), failure)
        sys.exit(1)
    if PartialState().is_main_process:
        storage.write_record(str(folder / OUTCOME), outcome)


if __name__ == "__main__":
    main(sys.argv[1])
