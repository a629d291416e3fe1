"""Offer select, reselect and sweep to the Prefect server at PREFECT_API_URL from this process:
`python -m deployments.serve`.

No work pool and no worker: runs are processes of this machine, for as long as this one lives. What
is offered is `prefect.yaml`, as `deployments.deploy` deploys it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import load_flow_from_entrypoint
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.templating import apply_values

from deployments.offer import described, parse


def offered(variables: Mapping[str, str]) -> list[RunnerDeployment]:
    """The deployments of `prefect.yaml` with the `variables` filled in, to be served."""
    os.environ |= variables  # Prefect fills in {{ $NAME }} from there
    return [_deployment(apply_values(one, {})) for one in described()]


def _deployment(one: Mapping[str, Any]) -> RunnerDeployment:
    times = [
        Cron(time["cron"], timezone=time["timezone"], active=time["active"] == "true")
        for time in one.get("schedules", ())
    ]
    made: Any = load_flow_from_entrypoint(one["entrypoint"]).to_deployment(
        one["name"],
        parameters=one["parameters"],
        tags=one["tags"],
        schedules=times or None,
        concurrency_limit=ConcurrencyLimitConfig(**one["concurrency_limit"])
        if "concurrency_limit" in one
        else None,
        paused=False,  # it is since the last time that serving ended
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment: RunnerDeployment = made
    deployment.work_pool_name = deployment.work_queue_name = (
        None  # said, so that one that was deployed to a pool leaves it
    )
    return deployment


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    variables = parse(__doc__, arguments)
    os.chdir(variables["DEITA_ROOT"])
    serve(*offered(variables))


if __name__ == "__main__":
    main()
