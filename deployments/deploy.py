"""Deploy select, reselect and sweep to the Prefect server at PREFECT_API_URL: `python -m
deployments.deploy`.

From a checkout and from an installed package alike. The work pool, of type process, is made where
there is none; a worker then runs what is started from the UI: `prefect worker start --pool deita`.
Deploying again leaves reselect's schedule as it is in the UI.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from deployments.offer import YAML, client_of_the_server, described, parse


def make_pools() -> None:
    """The work pools that `prefect.yaml` names, where they are missing."""
    with client_of_the_server() as client:
        for name in {one["work_pool"]["name"] for one in described()}:
            try:
                client.read_work_pool(name)
            except ObjectNotFound:
                template = ProcessWorker.get_default_base_job_template()
                client.create_work_pool(
                    WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template)
                )


def main(arguments: Sequence[str] | None = None) -> None:
    """Deploy; ends with Prefect's status."""
    variables = parse(__doc__, arguments)
    make_pools()
    command = [
        sys.executable,
        "-m",
        "prefect",
        "--no-prompt",
        "deploy",
        "--all",
        "--prefect-file",
        str(YAML),
    ]
    sys.exit(subprocess.run(command, env={**os.environ, **variables}, check=False).returncode)


if __name__ == "__main__":
    main()
