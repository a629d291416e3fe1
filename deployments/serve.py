"""Serve select, reselect, sweep and align from this process: `python -m deployments.serve`.

Needs a Prefect server at PREFECT_API_URL, but no work pool and no worker: runs are processes of
this machine, as long as this one lives. It serves `prefect.yaml`, as `deployments.deploy` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.flows import load_flow_from_entrypoint
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.templating import apply_values

from deployments.offer import read_deployments, read_variables


def build_deployments(variables: Mapping[str, str]) -> list[RunnerDeployment]:
    """Return the deployments of `prefect.yaml`, filled in with `variables`."""
    os.environ |= variables  # Prefect takes {{ $NAME }} from there
    return [_build_deployment(_fill_in(fields)) for fields in read_deployments()]


def _fill_in(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a deployment with its variables filled in; those of a trigger's event stay.

    Prefect's own `deploy` does the same.
    """
    triggers = fields.pop("triggers", [])
    filled: dict[str, Any] = apply_values(fields, {})
    filled["triggers"] = [
        {**apply_values(without_parameters, {}), "parameters": parameters}
        for parameters, without_parameters in map(_split_parameters, triggers)
    ]
    return filled


def _split_parameters(trigger: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    rest = dict(trigger)
    return rest.pop("parameters", None), rest


def _build_deployment(fields: Mapping[str, Any]) -> RunnerDeployment:
    schedules = [
        Cron(item["cron"], timezone=item["timezone"], active=item["active"] == "true")
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
        triggers=[DeploymentEventTrigger(**trigger) for trigger in fields["triggers"]],
        paused=False,  # Prefect pauses a deployment when serving ends
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    # Set, so that a deployment that was in a work pool leaves it.
    deployment.work_pool_name = None
    deployment.work_queue_name = None
    return deployment


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    variables = read_variables(__doc__, arguments)
    os.chdir(variables["DEITA_ROOT"])
    serve(*build_deployments(variables))


if __name__ == "__main__":
    main()
