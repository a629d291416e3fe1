"""The deployments in `prefect.yaml`, and the options that fill it in.

deploy, serve and ui share them.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from deita_tasks.terminal import escape

YAML = Path(__file__).with_name("prefect.yaml")
NIGHTLY = "0 3 * * *"
RESELECT = "reselect-subset/reselect"
POOLS = "pools"  # the input in `prefect.yaml`
PATHS = {"input", "output", "store", "selection", "base", "held_out"}  # parameters


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that fill in the deployments."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--root",
        default=".",
        help="working folder of the runs, and base of the form's paths; default: this folder",
    )
    parser.add_argument(
        "--storage", help="folder or s3:// URI for pools, results and store; default: the root"
    )
    parser.add_argument(
        "--input",
        help="file, folder, glob or URI that the form starts with; default: pools in the root",
    )
    parser.add_argument(
        "--budget", type=int, help="budget that the forms start with; default: that of the flows"
    )
    parser.add_argument(
        "--cron", help=f"schedule of reselect, in UTC; default: unchanged, at first {NIGHTLY!r}"
    )
    parser.add_argument(
        "--active",
        action=argparse.BooleanOptionalAction,
        help="turn the schedule on; default: unchanged, at first off",
    )
    return parser


def fill_in(options: argparse.Namespace, client: SyncPrefectClient) -> list[dict[str, Any]]:
    """Return the deployments of `prefect.yaml` as the options want them.

    Paths begin at the root. A schedule on the server keeps its hour, and stays on or off, unless
    the options differ.
    """
    root = Path(options.root).resolve()
    in_container = getattr(options, "pool_type", "process") != "process"
    if not in_container and not root.is_dir():
        fail(f"--root {options.root}: no such folder")
    if options.budget is not None and options.budget < 1:
        fail(f"--budget {options.budget}: expected at least 1")
    schedule = _schedule(options, _read_schedules(client))
    storage = _below(root, options.storage or ".")
    deployments = read_deployments()
    for deployment in deployments:
        parameters = deployment["parameters"]
        deployment["parameters"] = _absolute(storage, parameters)
        if options.input and parameters.get("source", {}).get("input") == [POOLS]:
            pools = _below(Path.cwd(), options.input)
            deployment["parameters"]["source"]["input"] = [pools]
        if options.budget:
            deployment["parameters"] |= _budget_parameters(deployment["name"], options.budget)
        if "training" in parameters:  # a model is read from a folder, wherever the results go
            base = _below(root, parameters["training"]["base"])
            deployment["parameters"]["training"]["base"] = base
        if "schedules" in deployment:
            deployment["schedules"] = [schedule]
    return deployments


def _absolute(storage: str, value: Any, name: str = "") -> Any:
    """Return `value` with each path in it, at any depth, below `storage`. name: its parameter."""
    if isinstance(value, dict):
        return {field: _absolute(storage, item, field) for field, item in value.items()}
    if isinstance(value, list):
        return [_absolute(storage, item, name) for item in value]
    return f"{storage.rstrip('/')}/{value}" if name in PATHS else value


def _budget_parameters(name: str, budget: int) -> dict[str, Any]:
    """Return what the form of a deployment starts with so that it fits a budget."""
    if name in ("select", "reselect"):
        return {"selection": {"budget": budget}}
    if name == "sweep":  # in the proportions of its defaults
        return {"grid": {"budgets": sorted({max(1, budget // part) for part in (6, 2, 1)})}}
    return {}


def _below(folder: Path, path: str) -> str:
    """Return `path` as it is seen from `folder`; a URI stays."""
    return path if "://" in path else str((folder / path).resolve())


def _read_schedules(client: SyncPrefectClient) -> list[DeploymentSchedule]:
    try:
        return client.read_deployment_by_name(RESELECT).schedules
    except ObjectNotFound:
        return []


def _schedule(
    options: argparse.Namespace, schedules: Sequence[DeploymentSchedule]
) -> dict[str, Any]:
    crons = [str(getattr(item.schedule, "cron", "")) for item in schedules] or [NIGHTLY]
    if not options.cron and (len(crons) > 1 or not crons[0]):
        fail(
            "reselect has schedules that are not a single cron line, and would lose them: set "
            "--cron, or make it one in the UI"
        )
    zones = [str(getattr(item.schedule, "timezone", None) or "") for item in schedules]
    zones = [zone for zone in zones if zone]
    active = options.active
    if active is None:
        active = any(item.active for item in schedules)
    return {
        "cron": options.cron or crons[0],
        "timezone": "UTC" if options.cron or not zones else zones[0],
        "active": active,
    }


def read_deployments() -> list[dict[str, Any]]:
    """Return the deployments of `prefect.yaml`; none shares a value with another."""
    content = yaml.safe_load(YAML.read_text(encoding="utf-8"))
    return [copy.deepcopy(deployment) for deployment in content["deployments"]]


@contextmanager
def connect() -> Iterator[SyncPrefectClient]:
    """Give a client of the server at PREFECT_API_URL; end the program if none answers."""
    url = PREFECT_API_URL.value()
    if not url:
        fail(
            "PREFECT_API_URL is not set: start a server (`prefect server start`) and set it "
            "to http://127.0.0.1:4200/api"
        )
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
        if problem is not None:
            fail(
                f"no Prefect server answers at {url} ({problem}); start it, or correct "
                "PREFECT_API_URL"
            )
        yield client


def fail(message: str) -> NoReturn:
    """Print an error in one line and exit with status 2."""
    print(f"deita: {escape(message)}", file=sys.stderr)
    sys.exit(2)
