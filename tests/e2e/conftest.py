"""One Prefect server and one worker a session, as an operator has them: processes, which run the
package as it is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.ui import start_process, start_server
from flows.cli.server import free_port
from tests.conftest import ROOT


def screenshots() -> Path | None:
    """Where to write the README's pictures anew: DEITA_SCREENSHOTS=1 asks for it; or None."""
    return ROOT / "docs" / "screenshots" if os.environ.get("DEITA_SCREENSHOTS") else None


POOL_ROWS = 400 if screenshots() else 48
PATIENCE = (
    600 if screenshots() else 240
)  # seconds that a run may take on a busy machine: its process alone needs 15 to start
FILES_URL = "http://files.example"  # where a browser would find the results
CHEAP: dict[str, Any] = {
    "scoring": {"complexity": "instruction_length", "quality": "response_length"}
}


@dataclass(frozen=True)
class Site:
    """A place where the deployments work: its folder, the environment that names its server and its
    code, and a client of the server.
    """

    root: Path
    environment: Mapping[str, str]
    client: SyncPrefectClient

    @property
    def pool(self) -> Path:
        return self.root / "pools" / "pool.jsonl"

    def run(self, *arguments: str) -> str:
        """What `python -m <arguments>` says, run in the folder; it has to end well."""
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def until(there: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What `there` gives as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < end, f"not within {seconds:.0f} seconds"
        time.sleep(0.5)
    return found


def ended(client: SyncPrefectClient, run: UUID) -> FlowRun:
    """The run, when it has come to a final state."""

    def final() -> FlowRun | None:
        found = client.read_flow_run(run)
        return found if found.state and found.state.is_final() else None

    return until(final)  # type: ignore[no-any-return]


def write_long_pool(folder: Path) -> Path:
    """1,500 rows that are all different, and minutes of work for an embedder."""
    rows = (
        {"instruction": f"Count to {number}.", "output": f"{number} " * 300}
        for number in range(1500)
    )
    pool = folder / "long.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return pool


class Process(NamedTuple):
    """A process of this machine."""

    pid: int
    parent: int
    session: int


def processes() -> list[Process]:
    """All that there are."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            _, parent, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            found.append(Process(int(stat.parent.name), int(parent), int(session)))
    return found


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is installed: the content of its wheel, away from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("deita_tasks", "flows", "deployments"):
        shutil.copytree(
            ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(folder / "source"),
    ]
    subprocess.run(command, check=True, timeout=180)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="session")
def site(
    installed: Path, sample_pool: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A server with an empty database, and the sample pool's first rows (for the README's pictures:
    all of them) in a folder.
    """
    root = tmp_path_factory.mktemp("site")
    if screenshots():  # a folder whose name reads well, and whose store may be warm
        root = Path(tempfile.gettempdir()) / "deita"
        for name in ("pools", "results"):
            shutil.rmtree(root / name, ignore_errors=True)
    (root / "pools").mkdir(parents=True)
    with sample_pool.open(encoding="utf-8") as rows:
        (root / "pools" / "pool.jsonl").write_text(
            "".join(islice(rows, POOL_ROWS)), encoding="utf-8"
        )
    with start_server(tmp_path_factory.mktemp("prefect"), free_port()) as environment:
        of_the_site = {
            **environment,
            "PYTHONPATH": str(installed),
            "HF_HUB_OFFLINE": "1",
            "DEITA_FILE_LINKS": f"{root / 'results'}={FILES_URL}",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
        }
        with (
            temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}),
            get_client(sync_client=True) as client,
        ):
            yield Site(root, of_the_site, client)


@pytest.fixture(scope="session")
def deployed(site: Site) -> Site:
    """The site with what `python -m deployments.deploy` makes."""
    said = site.run("deployments.deploy")
    assert said.count("successfully created") == 6
    return site


@pytest.fixture(scope="session")
def worker(deployed: Site) -> Iterator[subprocess.Popen[bytes]]:
    """A process worker of the pool that was deployed to."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "deita"]
    with start_process(command, deployed.environment, deployed.root / "worker.log") as process:
        until(lambda: deployed.client.read_workers_for_work_pool("deita"))
        yield process
