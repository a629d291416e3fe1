"""Serve the flows of prefect.yaml from this process: `python -m deployments.serve`.

Needs a Prefect server at PREFECT_API_URL, but no work pool and no worker: runs are processes of
this machine, as long as this one lives. It serves `prefect.yaml`, as `deployments.deploy` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import load_flow_from_entrypoint
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from deployments.offer import build_parser, connect, fill_in


def build_deployment(fields: Mapping[str, Any]) -> RunnerDeployment:
    """Return a deployment of `prefect.yaml`, filled in, for this process to serve."""
    schedules = [
        Cron(item["cron"], timezone=item["timezone"], active=item["active"])
        for item in fields.get("schedules", ())
    ]
    concurrency_limit = None
    if "concurrency_limit" in fields:
        concurrency_limit = ConcurrencyLimitConfig(**fields["concurrency_limit"])
    flow: Any = load_flow_from_entrypoint(fields["entrypoint"])
    deployment: RunnerDeployment = flow.to_deployment(
        fields["name"],
        parameters=fields["parameters"],
        tags=fields["tags"],
        schedules=schedules or None,
        concurrency_limit=concurrency_limit,
        paused=False,  # Prefect pauses a deployment when serving ends
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    # Set, so that a deployment that was in a work pool leaves it.
    deployment.work_pool_name = None
    deployment.work_queue_name = None
    return deployment


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    options = build_parser(__doc__).parse_args(arguments)
    with connect() as client:
        deployments = fill_in(options, client)
    os.chdir(Path(options.root))
    serve(*map(build_deployment, deployments))


if __name__ == "__main__":
    main()
