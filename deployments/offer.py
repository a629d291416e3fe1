"""What `prefect.yaml` describes, and what fills it in: the options that deploy, serve and ui share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

YAML = Path(__file__).with_name("prefect.yaml")
NIGHTLY = "0 3 * * *"
PERIODIC = "reselect-subset/reselect"


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that say what the deployments are filled in with."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "--root",
        default=".",
        help="folder in which runs work, and where the form's paths begin; default: this one",
    )
    made.add_argument(
        "--input",
        help="file, folder, glob or URI with which the form opens; default: pools in the root",
    )
    made.add_argument(
        "--cron", help=f"when reselect runs, in UTC; default: as it was, at first {NIGHTLY!r}"
    )
    made.add_argument(
        "--active",
        action=argparse.BooleanOptionalAction,
        help="turn that schedule on; default: as it was, at first off",
    )
    return made


def environment(options: argparse.Namespace, client: SyncPrefectClient) -> dict[str, str]:
    """The variables of `prefect.yaml`. A schedule that the server has keeps its hour and stays on
    or off, unless the options differ.
    """
    root = Path(options.root).resolve()
    if not root.is_dir():
        fail(f"--root {options.root}: no such folder")
    told = options.input or str(root / "pools")
    pool = told if "://" in told else str(Path(told).resolve())
    try:
        held = client.read_deployment_by_name(PERIODIC).schedules
    except ObjectNotFound:
        held = []
    crons = [str(getattr(one.schedule, "cron", "")) for one in held] or [NIGHTLY]
    if not options.cron and (len(crons) > 1 or not crons[0]):
        fail(
            "reselect has schedules that are not one line of cron, and would lose them: say "
            "--cron, or make it one in the UI"
        )
    cron = options.cron or crons[0]
    active = options.active if options.active is not None else any(one.active for one in held)
    zones = [str(zone) for one in held if (zone := getattr(one.schedule, "timezone", None))]
    zone = "UTC" if options.cron or not zones else zones[0]
    schedule = {"DEITA_CRON": cron, "DEITA_TIMEZONE": zone, "DEITA_ACTIVE": str(active).lower()}
    return {"DEITA_ROOT": str(root), "DEITA_INPUT": pool, **schedule}


def described() -> list[dict[str, Any]]:
    """The deployments of `prefect.yaml`, not filled in."""
    deployments: list[dict[str, Any]] = yaml.safe_load(YAML.read_text(encoding="utf-8"))[
        "deployments"
    ]
    return deployments


@contextmanager
def client_of_the_server() -> Iterator[SyncPrefectClient]:
    """A client of the server that is to have the deployments; ends the program, in one line, where
    there is none.
    """
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
                f"no Prefect server answers at {url} ({problem}); start it, or set "
                "PREFECT_API_URL to where it is"
            )
        yield client


def fail(message: str) -> NoReturn:
    """End the program with one line."""
    print(f"deita: {message}", file=sys.stderr)
    sys.exit(2)


def parse(description: str | None, arguments: Sequence[str] | None) -> dict[str, str]:
    """The variables of `prefect.yaml` as the command line has them."""
    options = parser(description).parse_args(arguments)
    with client_of_the_server() as client:
        return environment(options, client)
