"""The work pools that deployments go to, with the templates that Prefect's server has."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import prefect
import pytest
from prefect.utilities.templating import apply_values

from deployments.work_pools import add_pool_options, base_job_template, job_variables

METADATA = (
    Path(prefect.__file__).parent
    / "server/api/collections_data/views/aggregate-worker-metadata.json"
)


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_pool_options(parser)
    return parser.parse_args(words)


def rendered(*words: str) -> dict[str, Any]:
    """The job of a run, as a worker renders it: the template with the variables filled in."""
    options = parse(*words)
    template = base_job_template(json.loads(METADATA.read_text()), options.pool_type)
    properties = template["variables"]["properties"]
    variables = {name: each.get("default") for name, each in properties.items()}
    variables |= job_variables(options)
    unknown = set(variables) - set(properties)
    assert not unknown, "a variable that the pool does not know"
    values = {name: value for name, value in variables.items() if value is not None}
    job = apply_values(template["job_configuration"], values)
    assert isinstance(job, dict)
    return job


def test_a_kubernetes_job_has_its_image_memory_gpus_and_secret() -> None:
    words = ("--image", "registry/deita:1", "--memory", "16Gi", "--gpus", "2")
    job = rendered("--pool-type", "kubernetes", *words)
    spec = job["job_manifest"]["spec"]
    assert (spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (1, 1, 0)
    pod = spec["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert "parallelism" not in pod
    [container] = pod["containers"]
    assert container["image"] == "registry/deita:1"
    assert container["resources"]["limits"]["memory"] == "16Gi"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert container["envFrom"] == [{"secretRef": {"name": "deita", "optional": True}}]


def test_the_manifest_is_one_that_kubernetes_knows() -> None:
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="needs kubernetes-validate: pip install kubernetes-validate"
    )
    job = rendered("--pool-type", "kubernetes", "--memory", "16Gi", "--gpus", "1")
    manifest = job["job_manifest"]
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["env"], container["args"] = [], ["prefect", "flow-run", "execute"]  # by the worker
    manifest["metadata"]["labels"] = {}
    kubernetes_validate.validate(manifest, "1.34", strict=True)


def test_a_docker_container_has_its_memory_and_gpus() -> None:
    job = rendered("--pool-type", "docker", "--memory", "16g", "--gpus", "1")
    assert (job["image"], job["mem_limit"]) == ("deita-tasks:latest", "16g")
    devices = job["container_create_kwargs"]["device_requests"]
    assert devices == [{"count": 1, "capabilities": [["gpu"]]}]


def test_a_secret_stays_a_reference_to_its_block() -> None:
    environment = job_variables(parse("--aws-credentials", "team"))["env"]
    assert environment["AWS_SECRET_ACCESS_KEY"] == (
        "{{ prefect.blocks.aws-credentials.team.aws_secret_access_key }}"
    )
