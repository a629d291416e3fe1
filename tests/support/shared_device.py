"""A run whose embedder says when it computes, and a task that says where it runs: for tests that
look at other processes.

python -m tests.support.shared_device POOL FOLDER LOG     one shard after the other on a device that
has one slot
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prefect import task

from deita_tasks.config import Advanced, Export, Scoring, Selection, Source
from deita_tasks.conversations import Conversation
from deita_tasks.embedding import EMBEDDERS
from deita_tasks.records import ModelOutput
from tests.support import components


class TimedEmbedder(components.TopicEmbedder):
    """Takes a quarter of a second a shard, and appends when it began and ended to the file that
    TIMES names.
    """

    device: str = "cpu"

    def compute(self, conversations: Sequence[Conversation]) -> ModelOutput:
        begun = time.time()
        time.sleep(0.25)
        with Path(os.environ["TIMES"]).open("a") as times:
            times.write(f"{os.getpid()} {begun} {time.time()}\n")
        return super().compute(conversations)


@task(persist_result=False, result_serializer="json")
def environment_here(number: int) -> dict[str, str]:
    """What a worker process has of its own."""
    from deita_tasks.tasks.model_cache import worker_environment

    time.sleep(1)  # so that one process does not take all
    return {"pid": str(os.getpid()), "WORKER": os.environ.get("WORKER", ""), **worker_environment}


@task(persist_result=False, result_serializer="json")
def killed(number: int) -> None:
    """Ends its process, as a machine without memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from flows.select import select_subset

    pool, folder, os.environ["TIMES"] = sys.argv[1:]
    EMBEDDERS["sentence_transformers"] = "tests.support.shared_device:TimedEmbedder"  # type: ignore[index]
    select_subset(
        source=Source(input=[pool]),
        export=Export(output=f"{folder}/out"),
        scoring=Scoring(complexity="instruction_length", quality="response_length"),
        selection=Selection(budget=5),
        advanced=Advanced(store=f"{folder}/store", shard_rows=3, device_slots=1),
    )
