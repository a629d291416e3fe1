"""Cache keys, retries and result storage: what all tasks that write an artifact share.

A task takes references and returns references, as JSON: texts, scores and vectors stay in the
store. Its `key` names everything its result depends on (digests and fingerprints, never a run, a
batch size or a device), and Prefect's cache uses nothing else. Before each call the caller checks
whether the artifact behind a cached reference still exists, and sets `refresh_cache` if not: a
reference to nothing is never trusted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid4

from prefect import Task
from prefect.context import FlowRunContext
from prefect.filesystems import WritableFileSystem
from prefect.serializers import JSONSerializer
from prefect.tasks import exponential_backoff
from pydantic import Field, JsonValue

from deita_tasks import storage
from deita_tasks.artifacts.task_results import CLASS_NAMES, StoredResult
from deita_tasks.config import Runtime
from deita_tasks.errors import InputError, ModelError, ServerUnreachable, TrainingFailed, UsageError

NOT_WORTH_RETRYING = (UsageError, InputError, ModelError, ServerUnreachable, TrainingFailed)


def cache_key(context: Any, arguments: Mapping[str, Any]) -> str:
    """Return a task's name and the last step of its `key` argument.

    A key is a URI or a name that ends in a digest of all inputs, so a moved store keeps its
    results.
    """
    return f"{context.task.name}-{arguments['key'].rsplit('/', 1)[-1]}"


def is_worth_retrying(task: Any, run: Any, state: Any) -> bool:
    """Return whether a retry may help.

    Not with a wrong option, a bad pool, an unfit model or an address without a server.
    """
    return not isinstance(state.result(raise_on_failure=False), NOT_WORTH_RETRYING)


class StoreResults(WritableFileSystem):
    """Prefect block that keeps task results in the run's own store, written atomically.

    A record of Prefect names the code that reads it, and a store may be shared. So the store keeps
    the plain value alone (StoredResult), and each reader makes Prefect's record around it anew.
    Prefect treats a record that cannot be read as missing.
    """

    _block_type_name = "DEITA results"

    uri: str = Field(description="Folder or s3:// URI of the records.")

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]
        """Return Prefect's record of the result `path`.

        Raises MissingFile, or DamagedArtifact for a file that is not a StoredResult.
        """
        stored = storage.read_record(storage.join(self.uri, path), StoredResult)
        block = self._block_document_id
        metadata = {
            "storage_key": path,
            "serializer": PLAIN_JSON.model_dump(),
            "storage_block_id": None if block is None else str(block),
        }
        return json.dumps({"metadata": metadata, "result": json.dumps(stored.value)}).encode()

    def write_path(self, path: str, content: bytes, _sync: bool = True) -> None:  # type: ignore[override]
        """Write the result in Prefect's record `content`; leave out the error of a failed task."""
        value = json.loads(json.loads(content)["result"])
        if CLASS_NAMES.isdisjoint(value):
            storage.write_record(storage.join(self.uri, path), StoredResult(value=value))


PLAIN_JSON = JSONSerializer(object_decoder=None)

CACHED: dict[str, Any] = {
    "cache_key_fn": cache_key,
    "persist_result": True,
    "result_serializer": PLAIN_JSON,
    "retry_condition_fn": is_worth_retrying,
    "retry_jitter_factor": 0.5,
}


def call_cached(
    task: Task[..., Any], options: Runtime, artifact_exists: bool, *arguments: Any
) -> dict[str, JsonValue]:
    """Call a task; if its artifact does not exist, run it whatever Prefect has cached.

    Return what the task returns, of this run or of an earlier one. arguments: the first is its key.
    """
    bound: Any = bind(task, options).with_options(refresh_cache=not artifact_exists)
    result: dict[str, JsonValue] = bound(*arguments)
    return result


def bind(task: Task[..., Any], options: Runtime) -> Task[..., Any]:
    """Return `task` with the run's retries, and with its results in the run's own store.

    Without tags: for each run of a task with a tag Prefect asks its server for a slot, and waits.
    """
    context = FlowRunContext.get()
    run_id = context.flow_run.id if context and context.flow_run else uuid4()
    uri = storage.join(storage.absolute(options.store), "results")
    return task.with_options(
        retries=options.retries,
        retry_delay_seconds=exponential_backoff(backoff_factor=2),
        result_storage=_results_block(uri, run_id),
    )


@lru_cache(maxsize=4)
def _results_block(uri: str, run_id: UUID) -> StoreResults:
    """Return the block for a store's results, saved once a run: Prefect only takes saved blocks."""
    block = StoreResults(uri=uri)
    block.save(f"deita-{storage.digest_of(uri)}", overwrite=True)
    return block
