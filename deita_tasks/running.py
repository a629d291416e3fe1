"""Where a run's shards are computed: which runner, on which cluster; and whether that is possible, found before anything starts."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import NamedTuple, cast, get_args

from deita_tasks.config import Advanced, RunnerName
from deita_tasks.errors import MissingExtra, UsageError

PACKAGES: Mapping[str, str] = {"dask": "prefect_dask", "ray": "prefect_ray"}  # by runner, which is also the name of the extra


class Running(NamedTuple):
    """`cluster`: the address of one that is there, or None."""

    runner: RunnerName
    cluster: str | None


def running_of(options: Advanced, environment: Mapping[str, str] | None = None) -> Running:
    """What the parameters say, else DEITA_RUNNER and DEITA_CLUSTER. Raises UsageError for what does not go together or is not installed."""
    environment = os.environ if environment is None else environment
    runner = options.runner or environment.get("DEITA_RUNNER") or "thread"
    if runner not in get_args(RunnerName):
        raise UsageError(f"DEITA_RUNNER = {runner!r}: expected one of {', '.join(get_args(RunnerName))}")
    # A cluster in the environment is for the runs that can use it; one in the parameters is meant.
    cluster = options.cluster or (environment.get("DEITA_CLUSTER") if runner in PACKAGES else None)
    if cluster and runner not in PACKAGES:
        raise UsageError(f"cluster = {cluster!r} with runner = {runner!r}: expected the runner {' or '.join(PACKAGES)}")
    if cluster and options.workers:
        raise UsageError(f"workers = {options.workers} with cluster = {cluster!r}: a cluster has its own; leave one of them out")
    if options.num_gpus is not None and runner not in PACKAGES:
        raise UsageError(f"num_gpus = {options.num_gpus:g} with runner = {runner!r}: expected the runner {' or '.join(PACKAGES)}")
    if runner != "thread" and options.store.startswith("memory:"):
        raise UsageError(f"store = {options.store!r} with runner = {runner!r}: other processes do not see it; expected a folder or s3://")
    if runner in PACKAGES and importlib.util.find_spec(PACKAGES[runner]) is None:
        raise MissingExtra(runner, PACKAGES[runner].replace("_", "-"), runner)
    return Running(cast(RunnerName, runner), cluster or None)
