"""Two network namespaces as two hosts: services and a worker on one, a worker on the other.

The other host is reached through a link that the test can cut, as if the host had lost its power.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deployments.ui import server_environment, start_process
from tests.conftest import ROOT
from tests.e2e.conftest import until
from tests.support.s3 import S3

HEAD, OTHER = f"deita-head-{os.getpid()}", f"deita-other-{os.getpid()}"  # of this run alone
PROBE = f"deita-probe-{os.getpid()}"
HEAD_ADDRESS, OTHER_ADDRESS = "10.213.77.1", "10.213.77.2"
SCHEDULER = f"tcp://{HEAD_ADDRESS}:8786"
ROWS = 48
BUCKET = "two-hosts"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def why_not() -> str | None:
    """Return why this machine can make no namespaces; None if it can."""
    if shutil.which("ip") is None:
        return "needs ip: apt-get install iproute2"
    try:
        ip("netns", "add", PROBE)
    except (OSError, subprocess.CalledProcessError):
        return "needs network namespaces, which this machine or user may not make"
    ip("netns", "delete", PROBE)
    return None


pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif("DEITA_HOSTS" not in os.environ, reason="takes five minutes: DEITA_HOSTS=1"),
]


@dataclass
class Hosts:
    """Both hosts; `start` runs a program on one of them until the test ends."""

    folder: Path
    environment: dict[str, str]
    stack: ExitStack
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, host: str, name: str, *module: str) -> subprocess.Popen[bytes]:
        command = ["ip", "netns", "exec", host, sys.executable, "-m", *module]
        log = self.folder / f"{name}.log"
        return self.stack.enter_context(start_process(command, self.environment, log))

    def start_worker(self, host: str, address: str) -> None:
        words = ("--host", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        words += ("--preload", "deita_tasks.tasks")  # seconds in which it could say nothing
        worker = self.start(host, f"worker-{host}", "dask", "worker", SCHEDULER, *words)
        self.workers[host] = worker

    def select(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        """Start `deita select` on the head."""
        words = ["--input", str(self.folder / "pool.jsonl"), "--budget", "20", "--shard-rows", "8"]
        words += ["--complexity", "instruction_length", "--quality", "response_length"]
        words += ["--output", str(self.folder / name), "--evaluation", "all"]
        return self.start(HEAD, name, "flows.cli", "select", *words, *more)

    def answers(self, url: str) -> bool:
        """Return whether a server on the head answers."""
        ask = f"import httpx; httpx.get({url!r}, timeout=5)"
        command = ["ip", "netns", "exec", HEAD, sys.executable, "-c", ask]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def finish(self, name: str, process: subprocess.Popen[bytes]) -> None:
        process.wait(300)
        assert process.returncode == 0, self.log(name)

    def decisions(self, name: str) -> list[dict[str, Any]]:
        columns = ["id", "decision", "rank", "evol_score", "nearest_id", "similarity"]
        table = pq.read_table(self.folder / name / "decisions.parquet", columns=columns)
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows


@pytest.fixture(scope="module")
def namespaces() -> Iterator[None]:
    """Two namespaces and the link between them; removed at the end."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    try:
        for name in (HEAD, OTHER):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        pair = f"link add link0 type veth peer name link0 netns {OTHER}"
        ip("-n", HEAD, *pair.split())
        for name, address in ((HEAD, HEAD_ADDRESS), (OTHER, OTHER_ADDRESS)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "link0")
            ip("-n", name, "link", "set", "link0", "up")
        yield
    finally:
        for name in (HEAD, OTHER):
            with suppress(subprocess.CalledProcessError):
                ip("netns", "delete", name)


@pytest.fixture(scope="module")
def hosts(
    namespaces: None, sample_pool: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosts]:
    """Prefect, S3, a scheduler and a worker on the head, and a worker on the other host."""
    folder = tmp_path_factory.mktemp("hosts")
    lines = sample_pool.read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "pool.jsonl").write_text("".join(lines[:ROWS]), encoding="utf-8")
    api = f"http://{HEAD_ADDRESS}:4200/api"
    environment = {
        **server_environment(folder / "prefect", 4200),
        **S3(f"http://{HEAD_ADDRESS}:5000").environment,
        "PREFECT_SERVER_API_HOST": HEAD_ADDRESS,
        "PREFECT_API_URL": api,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        # A host that says nothing for so long is given up; by default five minutes.
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s",
        "NO_PROXY": "*",
    }
    with ExitStack() as stack:
        made = Hosts(folder, environment, stack)
        made.start(HEAD, "s3", "moto.server", "-H", HEAD_ADDRESS, "-p", "5000")
        made.start(HEAD, "prefect", "prefect", "server", "start")
        made.start(HEAD, "scheduler", "dask", "scheduler", "--host", HEAD_ADDRESS, "--no-dashboard")
        made.start_worker(HEAD, HEAD_ADDRESS)
        made.start_worker(OTHER, OTHER_ADDRESS)
        until(lambda: made.answers(f"http://{HEAD_ADDRESS}:5000"), 120)
        bucket = f"import fsspec; fsspec.filesystem('s3').mkdir({BUCKET!r})"
        command = ["ip", "netns", "exec", HEAD, sys.executable, "-c", bucket]
        subprocess.run(command, env=environment, check=True)
        until(lambda: made.answers(f"{api}/health"), 180)
        yield made


def on_cluster(store: str) -> Sequence[str]:
    return ("--runner", "dask", "--cluster", SCHEDULER, "--store", f"s3://{BUCKET}/{store}")


def test_two_hosts_select_what_one_does_also_if_one_of_them_vanishes(hosts: Hosts) -> None:
    alone = hosts.select("alone", "--store", str(hosts.folder / "store"))
    hosts.finish("alone", alone)
    both = hosts.select("both", *on_cluster("both"), "--verbose")
    hosts.finish("both", both)
    assert hosts.decisions("both") == hosts.decisions("alone")
    assert "2 workers on" in hosts.log("both")

    cut = hosts.select("cut", *on_cluster("cut"), "--verbose")
    until(lambda: "embedding" in hosts.log("cut"), 300)
    time.sleep(1)
    assert cut.poll() is None, hosts.log("cut")
    ip("-n", OTHER, "link", "set", "link0", "down")
    hosts.finish("cut", cut)
    assert hosts.decisions("cut") == hosts.decisions("alone")
