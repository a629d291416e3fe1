"""The deployments in `prefect.yaml`, and the options that fill it in.

deploy, serve and ui share them.
"""

from __future__ import annotations

import argparse
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
ALIGN_AUTOMATION = "align each new selection"


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that fill in the deployments."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--root",
        default=".",
        help="working folder of the runs, and base of the form's paths; default: this folder",
    )
    parser.add_argument(
        "--input",
        help="file, folder, glob or URI that the form starts with; default: pools in the root",
    )
    parser.add_argument(
        "--cron", help=f"schedule of reselect, in UTC; default: unchanged, at first {NIGHTLY!r}"
    )
    parser.add_argument(
        "--active",
        action=argparse.BooleanOptionalAction,
        help="turn the schedule on; default: unchanged, at first off",
    )
    parser.add_argument(
        "--align",
        action=argparse.BooleanOptionalAction,
        help="start align for each new version of reselect; default: unchanged, at first off",
    )
    return parser


def environment(options: argparse.Namespace, client: SyncPrefectClient) -> dict[str, str]:
    """Return the variables of `prefect.yaml`.

    A schedule on the server keeps its hour, and it and the automation stay on or off, unless the
    options differ.
    """
    root = Path(options.root).resolve()
    if not root.is_dir():
        fail(f"--root {options.root}: no such folder")
    pool = options.input or str(root / "pools")
    if "://" not in pool:
        pool = str(Path(pool).resolve())
    return {
        "DEITA_ROOT": str(root),
        "DEITA_INPUT": pool,
        **_schedule_variables(options, _read_schedules(client)),
        "DEITA_ALIGN": str(_is_automation_on(options.align, client)).lower(),
    }


def _is_automation_on(wanted: bool | None, client: SyncPrefectClient) -> bool:
    """Return whether new versions start align: as wanted, else as it is on the server."""
    if wanted is not None:
        return wanted
    return any(each.enabled for each in client.read_automations_by_name(ALIGN_AUTOMATION))


def _read_schedules(client: SyncPrefectClient) -> list[DeploymentSchedule]:
    try:
        return client.read_deployment_by_name(RESELECT).schedules
    except ObjectNotFound:
        return []


def _schedule_variables(
    options: argparse.Namespace, schedules: Sequence[DeploymentSchedule]
) -> dict[str, str]:
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
        "DEITA_CRON": options.cron or crons[0],
        "DEITA_TIMEZONE": "UTC" if options.cron or not zones else zones[0],
        "DEITA_ACTIVE": str(active).lower(),
    }


def read_deployments() -> list[dict[str, Any]]:
    """Return the deployments of `prefect.yaml`, with its variables not filled in."""
    content = yaml.safe_load(YAML.read_text(encoding="utf-8"))
    deployments: list[dict[str, Any]] = content["deployments"]
    return deployments


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


def read_variables(description: str | None, arguments: Sequence[str] | None) -> dict[str, str]:
    """Return the variables of `prefect.yaml` that the command line asks for."""
    options = build_parser(description).parse_args(arguments)
    with connect() as client:
        return environment(options, client)
