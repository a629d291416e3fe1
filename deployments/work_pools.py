"""The work pool that deployments go to: processes, Docker containers or Kubernetes jobs."""

from __future__ import annotations

import argparse
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound

from deployments.offer import fail

POOL = "deita"
POOL_TYPES = ("process", "docker", "kubernetes")
IMAGE = "deita-tasks:latest"  # as docs/how-to/docker.md builds it
# A Secret of the cluster whose keys become variables of each job, where it exists.
CLUSTER_SECRET = "deita"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_DEFAULT_REGION": "region_name",
}


def add_pool_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of where runs are computed."""
    parser.add_argument("--pool", default=POOL, help=f"work pool; default: {POOL}")
    parser.add_argument(
        "--pool-type",
        choices=POOL_TYPES,
        default="process",
        help="what a missing work pool starts a run as; default: process",
    )
    parser.add_argument(
        "--image", default=IMAGE, help=f"for docker and kubernetes: image; default: {IMAGE}"
    )
    parser.add_argument(
        "--memory", help="for docker and kubernetes: memory of a run, such as 16Gi or 16g"
    )
    parser.add_argument(
        "--gpus", type=int, default=0, help="for docker and kubernetes: GPUs of a run; default: 0"
    )
    parser.add_argument(
        "--aws-credentials",
        metavar="BLOCK",
        help="Prefect block AwsCredentials from which runs get their AWS environment",
    )


def job_variables(options: argparse.Namespace) -> dict[str, Any]:
    """Return the job variables of every deployment: image, memory, GPUs, and the environment.

    A secret stays a reference to its block, which the worker looks up when a run starts.
    """
    variables: dict[str, Any] = {}
    if options.aws_credentials:
        block = f"prefect.blocks.aws-credentials.{options.aws_credentials}"
        variables["env"] = {
            name: f"{{{{ {block}.{field} }}}}" for name, field in CREDENTIALS.items()
        }
    if options.pool_type == "process":
        return variables
    variables["image"] = options.image
    if options.pool_type == "docker":
        return variables | _docker_variables(options)
    if options.memory:
        variables |= {"memory_request": options.memory, "memory_limit": options.memory}
    return variables | ({"gpus": options.gpus} if options.gpus else {})


def _docker_variables(options: argparse.Namespace) -> dict[str, Any]:
    variables: dict[str, Any] = {"auto_remove": True}
    if options.memory:
        variables["mem_limit"] = options.memory
    if options.gpus:
        devices = [{"count": options.gpus, "capabilities": [["gpu"]]}]
        variables["container_create_kwargs"] = {"device_requests": devices}
    return variables


def ensure_work_pool(client: SyncPrefectClient, name: str, pool_type: str) -> None:
    """Create the work pool if it is missing; end the program if it has another type."""
    try:
        found = client.read_work_pool(name).type
    except ObjectNotFound:
        template = base_job_template(client.read_worker_metadata(), pool_type)
        pool = WorkPoolCreate(name=name, type=pool_type, base_job_template=template)
        client.create_work_pool(pool)
    else:
        if found != pool_type:
            fail(
                f"--pool-type {pool_type}: the work pool {name} has the type {found}; name "
                "another by --pool, or delete it"
            )


def base_job_template(metadata: dict[str, Any], pool_type: str) -> dict[str, Any]:
    """Return the job template of a work pool: Prefect's own, for Kubernetes with GPUs and secrets.

    metadata: what the server knows of workers, by package and type.
    """
    [worker] = [types[pool_type] for types in metadata.values() if pool_type in types]
    template: dict[str, Any] = worker["default_base_job_configuration"]
    if pool_type == "kubernetes":
        _add_to_kubernetes(template)
    if pool_type == "docker":
        _add_variable(template, "container_create_kwargs", "object", {}, "More for Docker: GPUs.")
        template["job_configuration"]["container_create_kwargs"] = "{{ container_create_kwargs }}"
    return template


def _add_to_kubernetes(template: dict[str, Any]) -> None:
    _add_variable(template, "gpus", "integer", 0, "NVIDIA GPUs of a run.")
    _add_variable(
        template, "secret", "string", CLUSTER_SECRET, "Secret whose keys become variables."
    )
    manifest = template["job_configuration"]["job_manifest"]
    pod = manifest["spec"]["template"]["spec"]
    # Prefect's template has them in the pod, where Kubernetes knows no such fields.
    for field in ("parallelism", "completions"):
        manifest["spec"][field] = pod.pop(field, 1)
    pod["securityContext"] = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000}
    container = pod["containers"][0]
    container["resources"]["limits"]["nvidia.com/gpu"] = "{{ gpus }}"
    container["envFrom"] = [{"secretRef": {"name": "{{ secret }}", "optional": True}}]


def _add_variable(
    template: dict[str, Any], name: str, kind: str, default: Any, description: str
) -> None:
    template["variables"]["properties"][name] = {
        "title": name.replace("_", " ").capitalize(),
        "type": kind,
        "default": default,
        "description": description,
    }
