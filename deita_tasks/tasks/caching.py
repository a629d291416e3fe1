"""What all tasks that leave an artifact have in common: their cache key, their retries, and where
Prefect keeps what it remembers.

A task takes references and returns references, as JSON: texts, scores and vectors stay in the
store. Its `key` says what its result depends on (digests and fingerprints, never a run, a batch
size or a device), and Prefect's cache goes by that alone. Whether the artifact behind a remembered
reference is still there is looked at before the task is called; where it is not, the caller asks
for `refresh_cache`, so a reference to nothing is never trusted.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid4

from prefect import Task
from prefect.context import FlowRunContext
from prefect.filesystems import WritableFileSystem
from prefect.tasks import exponential_backoff
from pydantic import Field

from deita_tasks import storage
from deita_tasks.config import Advanced
from deita_tasks.errors import DamagedArtifact, InputError, ModelError, UsageError


def by_key(context: Any, arguments: Mapping[str, Any]) -> str:
    """A task's name and its `key` argument, of which the last part names it: nothing else changes
    its result.
    """
    return f"{context.task.name}-{arguments['key'].rsplit('/', 1)[-1]}"


def worth_retrying(task: Any, run: Any, state: Any) -> bool:
    """A wrong option, a bad pool or an unfit model does not get better by trying again; anything
    else may.
    """
    problem = state.result(raise_on_failure=False)
    return not isinstance(problem, (UsageError, InputError, ModelError))


class StoreResults(WritableFileSystem):
    """What Prefect remembers, in the run's own store, written atomically.

    A record names the serializer that is to read it, so one that names another than JSON is
    refused: a store may be shared, and reading a pickle is running it. Prefect takes what cannot be
    read for not there.
    """

    _block_type_name = "DEITA results"

    uri: str = Field(description="Folder or s3:// URI of the records.")

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]
        """The record `path`. Raises DamagedArtifact for one that is not JSON in JSON."""
        record = storage.read_json(storage.join(self.uri, path))
        try:
            serializer = record["metadata"]["serializer"]["type"]
        except (TypeError, KeyError):
            serializer = None
        if serializer != "json":
            raise DamagedArtifact(f"{path}: a result of type {serializer!r}; expected 'json'")
        return json.dumps(record).encode()

    def write_path(self, path: str, content: bytes, _sync: bool = True) -> None:  # type: ignore[override]
        """Remember the record `path`."""
        storage.write_bytes(storage.join(self.uri, path), content)


# What every task that leaves an artifact has in common.
CACHED: dict[str, Any] = {
    "cache_key_fn": by_key,
    "persist_result": True,
    "result_serializer": "json",
    "retry_condition_fn": worth_retrying,
    "retry_jitter_factor": 0.5,
}


def call(task: Task[..., Any], options: Advanced, there: bool, *arguments: Any) -> dict[str, Any]:
    """Call a task whose artifact is `there`, or is not and has to be made whatever Prefect
    remembers.
    """
    bound: Any = bind(task, options).with_options(refresh_cache=not there)
    result: dict[str, Any] = bound(*arguments)
    return result


def bind(task: Task[..., Any], options: Advanced) -> Task[..., Any]:
    """`task` with the run's retries, and with its remembered results in the run's own store.

    Without tags: for each run of a task that has one Prefect asks its server for a slot, and waits.
    """
    run = FlowRunContext.get()
    results = _results(
        storage.join(storage.absolute(options.store), "results"),
        run.flow_run.id if run and run.flow_run else uuid4(),
    )
    patience = exponential_backoff(backoff_factor=2)
    return task.with_options(
        retries=options.retries, retry_delay_seconds=patience, result_storage=results
    )


@lru_cache(maxsize=4)
def _results(uri: str, run: UUID) -> StoreResults:
    """The block for a store's results, made known to the server once a run: Prefect takes a block
    only once it knows it.
    """
    results = StoreResults(uri=uri)
    results.save(f"deita-{storage.digest_of(uri)}", overwrite=True)
    return results
