"""What each host of a Dask cluster has to have, checked before the first shard.

The same versions of what computes, the store, and the Prefect server. A host without would compute
other values, or fail in the middle of the run.
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import httpx

from deita_tasks import storage
from deita_tasks.errors import ComputeError, DeitaError, UsageError

# What values or records depend on.
PACKAGES = (
    *("deita-tasks", "prefect", "torch", "transformers", "tokenizers", "sentence-transformers"),
    *("numpy", "pyarrow"),
)
TIMEOUT = 30  # seconds for a host to answer, and for it to reach the Prefect server


def versions() -> dict[str, str]:
    """Return the versions on this host; of 2.13.0+cpu only 2.13.0, as builds may differ."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        found[package] = metadata.version(package).partition("+")[0]
    return found


def describe_host(store: str, api: str | None) -> dict[str, Any]:
    """Return this host's name, versions, and its problem with store or server; None without.

    Plain values, as a worker sends them back. api: the address of the Prefect server; None: not
    checked.
    """
    problem = _problem_with(store, api)
    return {"host": socket.gethostname(), "versions": versions(), "problem": problem}


def _problem_with(store: str, api: str | None) -> str | None:
    """Return what this host lacks, to stand after its name; None if it has all.

    api: the address of the Prefect server; None if the run has none that others could reach.
    """
    try:
        if not storage.exists(store):
            return f"does not see the store {store}: put it in S3, or on a disk that all share"
    except DeitaError as error:
        return f"cannot read the store: {error}"
    if api is None:
        return None
    try:
        httpx.get(f"{api.rstrip('/')}/health", timeout=TIMEOUT).raise_for_status()
    except httpx.HTTPError as error:
        return (
            f"cannot reach the Prefect server at {api} ({error}): set PREFECT_API_URL to an "
            "address that every host reaches"
        )
    return None


def check_dask_hosts(cluster: str, store: str, api: str | None) -> str:
    """Return in one line what hosts the cluster has. Raises UsageError if one lacks something."""
    from distributed import Client

    try:
        with Client(cluster, timeout=TIMEOUT) as client:
            answers = client.run(describe_host, store, api, on_error="return")
    except OSError as error:
        raise UsageError(
            f"cluster = {cluster}: no Dask scheduler answers there ({error}); start one by `dask "
            "scheduler`, or correct the address"
        ) from error
    return summarize(answers)


def summarize(answers: Mapping[str, Any]) -> str:
    """Return the workers and hosts in one line. answers: describe_host's, by worker, or its error.

    Raises UsageError, or ComputeError, that names the first worker with a problem.
    """
    ours = versions()
    for worker, answer in answers.items():
        if isinstance(answer, ImportError):
            raise UsageError(
                f"worker {worker} cannot import deita-tasks ({answer}); install "
                f"{ours['deita-tasks']} there"
            )
        if isinstance(answer, BaseException):
            raise ComputeError(
                f"worker {worker} does not answer ({type(answer).__name__}: {answer}); restart it, "
                "or run again without it"
            )
        differing = [
            f"{name} {version}, here {ours[name]}"
            for name, version in answer["versions"].items()
            if version != ours[name]
        ]
        problem = answer["problem"] or (differing and f"has {'; '.join(differing)}")
        if problem:
            raise UsageError(f"worker {worker} on host {answer['host']} {problem}")
    if not answers:
        return "no worker yet: shards wait until one comes"
    hosts = sorted({answer["host"] for answer in answers.values()})
    workers = "worker" if len(answers) == 1 else "workers"
    return (
        f"{len(answers)} {workers} on {', '.join(hosts)}: the same versions, store and Prefect "
        "server reached"
    )
