"""Deploy the flows of prefect.yaml to the Prefect server: `python -m deployments.deploy`.

The server is the one at PREFECT_API_URL. Works from a checkout and from an installed package.
Creates the work pool if it is missing; a worker then runs what you start in the UI: `prefect worker
start --pool deita`. Deploying again keeps reselect's schedule as it is in the UI.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deployments.offer import build_parser, connect, fill_in
from deployments.work_pools import add_pool_options, ensure_work_pool, job_variables


def build_project(
    options: argparse.Namespace, deployments: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the prefect.yaml of these deployments, whose runs work in the root."""
    step = {"prefect.deployments.steps.set_working_directory": {"directory": options.root}}
    pool = {"name": options.pool, "job_variables": job_variables(options)}
    return {"pull": [step], "deployments": [{**each, "work_pool": pool} for each in deployments]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Deploy; exit with Prefect's status."""
    parser = build_parser(__doc__)
    add_pool_options(parser)
    options = parser.parse_args(arguments)
    with connect() as client:
        deployments = fill_in(options, client)
        ensure_work_pool(client, options.pool, options.pool_type)
    options.root = str(Path(options.root).resolve())
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(build_project(options, deployments), file)
        file.flush()
        words = ["--no-prompt", "deploy", "--all", "--prefect-file", file.name]
        process = subprocess.run([sys.executable, "-m", "prefect", *words], check=False)
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
