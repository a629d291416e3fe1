"""Run a Prefect server with all flows that have a form: `python -m deployments.ui`.

In a checkout, `make ui`. For one machine and one person: Prefect's own data lies in .deita/prefect
of the root, apart from any other Prefect on the machine. Ctrl-C ends the server and its runs.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import httpx

from deployments.offer import build_parser, fail, read_deployments
from flows.cli.server import HOST, free_port

END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 20  # seconds for an orderly end
PATIENCE = 180  # seconds: the first start creates a database, perhaps on a slow machine

WELCOME = """
  Prefect UI:  {ui}/deployments

  Click select, then Run and Custom run; check the form, and Submit.
  The run's page shows its progress, and under Artifacts the result.
  To see runs of `deita` there too: export PREFECT_API_URL={api}

  Ctrl-C ends it. Runs write to {root}/results, Prefect writes to {home}.
"""


@contextmanager
def start_process(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a session of its own, so that Ctrl-C reaches only this program.

    A run can then report to the server before that ends.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end_session(process)


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children; a run under way has GRACE to tell the server."""
    end = time.monotonic() + GRACE
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < end:
            process.poll()  # or it would stay in its group
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until `is_ready`; end the program if the process ends or PATIENCE is over."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with suppress(httpx.HTTPError):
            if is_ready():
                return
        time.sleep(0.5)
    fail(f"Prefect did not start; see {log}")


def server_environment(home: Path, port: int) -> dict[str, str]:
    """Return the environment of our server and its clients.

    It has no setting of another Prefect on the machine, and turns telemetry off.
    """
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
    }
    return inherited | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_API_HOST": HOST,
        # Not `server start --port`, which the pages of the UI do not know.
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


@contextmanager
def start_server(home: Path, port: int) -> Iterator[dict[str, str]]:
    """Start a Prefect server and wait for it; give the environment of its clients."""
    home.mkdir(parents=True, exist_ok=True)
    environment = server_environment(home, port)
    health = f"{environment['PREFECT_API_URL']}/health"
    log = home / "server.log"
    command = [sys.executable, "-m", "prefect", "server", "start"]
    with start_process(command, environment, log) as process:
        wait_for(lambda: httpx.get(health).is_success, process, log)
        yield environment


@contextmanager
def crash_open_runs(api: str) -> Iterator[None]:
    """At the end, mark the runs still under way as crashed: they did not report in time."""
    try:
        yield
    finally:
        states = {"any_": ["PENDING", "RUNNING", "CANCELLING"]}
        open_runs = {"flow_runs": {"state": {"type": states}}}
        crashed = {
            "type": "CRASHED",
            "message": "Its server ended. What it computed is kept; run it again to resume.",
        }
        response = httpx.post(f"{api}/flow_runs/filter", json=open_runs, timeout=PATIENCE)
        for run in response.json():
            httpx.post(
                f"{api}/flow_runs/{run['id']}/set_state",
                json={"state": crashed, "force": True},
                timeout=PATIENCE,
            )


def file_server(folder: Path, port: int) -> list[str]:
    """Return the command that serves the files of a folder to this machine's browsers."""
    where = ["--bind", HOST, "--directory", str(folder)]
    return [sys.executable, "-m", "http.server", str(port), *where]


def file_links(folder: Path, port: int) -> dict[str, str]:
    """Return the variable by which runs link to the files that `file_server` serves."""
    return {"DEITA_FILE_LINKS": f"{folder}=http://{HOST}:{port}"}


def stop(*_: object) -> NoReturn:
    """End the program and its processes; ignore further signals meanwhile."""
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    print("Stopping. A run cut short keeps what it computed; run it again to resume.", flush=True)
    sys.exit(0)


def _serve_options(options: argparse.Namespace) -> list[str]:
    """Return the options of this command that `deployments.serve` has too."""
    words = []
    for name in ("root", "input", "budget", "cron"):
        value = getattr(options, name)
        if value:
            words += [f"--{name}", str(value)]
    if options.active is not None:
        words.append("--active" if options.active else "--no-active")
    return words


def main(arguments: Sequence[str] | None = None) -> None:
    """Run server and deployments until Ctrl-C or SIGTERM."""
    parser = build_parser(__doc__)
    parser.add_argument(
        "--port",
        type=int,
        default=4200,
        help="port of the UI; another if it is taken; default: 4200",
    )
    options = parser.parse_args(arguments)
    for number in END_SIGNALS:
        signal.signal(number, stop)
    root = Path(options.root).resolve()
    if not root.is_dir():
        fail(f"--root {options.root}: no such folder")
    home = root / ".deita" / "prefect"
    log = home / "serve.log"
    results = root / "results"
    results.mkdir(exist_ok=True)
    files_port = free_port(options.port + 1)
    command = [sys.executable, "-m", "deployments.serve", *_serve_options(options)]
    print("Starting a Prefect server; this takes up to a minute.", flush=True)
    with (
        start_server(home, free_port(options.port)) as environment,
        crash_open_runs(environment["PREFECT_API_URL"]),
        start_process(file_server(results, files_port), environment, home / "files.log"),
        start_process(command, environment | file_links(results, files_port), log) as serving,
    ):
        api = environment["PREFECT_API_URL"]
        wait_for(lambda: _are_served(api), serving, log)
        ui = api.removesuffix("/api") + "/v2"
        print(WELCOME.format(ui=ui, api=api, root=root, home=home), flush=True)
        status = serving.wait()
        fail(f"serving ended with status {status}; see {log}")


def _are_served(api: str) -> bool:
    """Return whether all deployments are served: Prefect pauses those that are not."""
    served = {"deployments": {"paused": {"eq_": False}}}
    count = httpx.post(f"{api}/deployments/count", json=served).json()
    return bool(count == len(read_deployments()))


if __name__ == "__main__":
    main()
