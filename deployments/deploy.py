"""Deploy select, reselect, sweep and align to the Prefect server: `python -m deployments.deploy`.

The server is the one at PREFECT_API_URL. Works from a checkout and from an installed package.
Creates the work pool, of type process, if it is missing; a worker then runs what you start in the
UI: `prefect worker start --pool deita`. Deploying again keeps reselect's schedule, and the
automation that starts align, as they are in the UI.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from deployments.offer import YAML, connect, read_deployments, read_variables


def create_work_pools() -> None:
    """Create the work pools that `prefect.yaml` names, if they are missing."""
    names = {deployment["work_pool"]["name"] for deployment in read_deployments()}
    with connect() as client:
        for name in names:
            try:
                client.read_work_pool(name)
            except ObjectNotFound:
                pool = WorkPoolCreate(
                    name=name,
                    type=ProcessWorker.type,
                    base_job_template=ProcessWorker.get_default_base_job_template(),
                )
                client.create_work_pool(pool)


def main(arguments: Sequence[str] | None = None) -> None:
    """Deploy; exit with Prefect's status."""
    variables = read_variables(__doc__, arguments)
    create_work_pools()
    options = ["--no-prompt", "deploy", "--all", "--prefect-file", str(YAML)]
    command = [sys.executable, "-m", "prefect", *options]
    process = subprocess.run(command, env={**os.environ, **variables}, check=False)
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
