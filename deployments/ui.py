"""A Prefect server with select, reselect and sweep, to click: `python -m deployments.ui`, or `make
ui` in a checkout.

For one machine and one person. What Prefect keeps lies in .deita/prefect of the root, apart from
any other Prefect on the machine; Ctrl-C ends the server, and the runs that it had under way.
"""

from __future__ import annotations

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

from deployments.offer import described, fail, parser
from flows.cli.server import HOST, free_port

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 20  # seconds for an end in good order
PATIENCE = 180  # seconds: a first start makes its database, on a slow machine

SAID = """
  Prefect UI:  {ui}/deployments

  Click select, then Run and Custom run; look over the form, set Budget to 150, and Submit. The run's page shows what happens,
  and under Artifacts what was selected. Runs of `deita` show there too with: export PREFECT_API_URL={api}

  Ctrl-C ends it. What runs write lies in {root}/results, what Prefect writes in {home}.
"""


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of our own. In a session of its own, so that Ctrl-C comes to us alone, and what
    tells the server ends before it.
    """
    with log.open("ab") as said:
        process = subprocess.Popen(
            command, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        end_session(process)


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started: a run under way says to the server that it was
    stopped, if it does so in time.
    """
    end = time.monotonic() + GRACE
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < end:
            process.poll()  # it would stay in its group
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server says what makes us `ready`; ends the program where the process has ended
    or nothing comes.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with suppress(httpx.HTTPError):
            if ready():
                return
        time.sleep(0.5)
    fail(f"Prefect did not start; what it said is in {log}")


def surroundings(home: Path, port: int) -> dict[str, str]:
    """The environment of a server of our own, and of what is to use it: nothing of another Prefect
    on the machine, and nobody is called.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return others | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(
            port
        ),  # not `server start --port`, of which its pages do not know
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


@contextmanager
def server(home: Path, port: int) -> Iterator[dict[str, str]]:
    """A Prefect server that answers; gives the environment in which others use it."""
    home.mkdir(parents=True, exist_ok=True)
    environment, log = surroundings(home, port), home / "server.log"
    with running([sys.executable, "-m", "prefect", "server", "start"], environment, log) as process:
        wait_for(
            lambda: httpx.get(f"{environment['PREFECT_API_URL']}/health").is_success, process, log
        )
        yield environment


@contextmanager
def no_run_left(api: str) -> Iterator[None]:
    """At the end no run is told to be under way: one that was, and did not say so in time, has
    crashed.
    """
    try:
        yield
    finally:
        under_way = {
            "flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        }
        crashed = {
            "type": "CRASHED",
            "message": "What served it was ended. What it computed is kept; run it again to go on.",
        }
        for run in httpx.post(f"{api}/flow_runs/filter", json=under_way, timeout=PATIENCE).json():
            httpx.post(
                f"{api}/flow_runs/{run['id']}/set_state",
                json={"state": crashed, "force": True},
                timeout=PATIENCE,
            )


def stop(*_: object) -> NoReturn:
    """End the program with all that it has started; another Ctrl-C does not cut that short."""
    for one in ENDS:
        signal.signal(one, signal.SIG_IGN)
    print("Stopping.", flush=True)
    sys.exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run server and deployments until Ctrl-C or SIGTERM."""
    told = parser(__doc__)
    told.add_argument(
        "--port",
        type=int,
        default=4200,
        help="port of the UI on this machine; another where it is taken; default: 4200",
    )
    options = told.parse_args(arguments)
    given = [
        word
        for name in ("root", "input", "cron")
        if (value := getattr(options, name))
        for word in (f"--{name}", value)
    ]
    given += [] if options.active is None else ["--active" if options.active else "--no-active"]
    for one in ENDS:
        signal.signal(one, stop)
    root = Path(options.root).resolve()
    if not root.is_dir():
        fail(f"--root {options.root}: no such folder")
    home, log = root / ".deita" / "prefect", root / ".deita" / "prefect" / "serve.log"
    print("A Prefect server starts; this takes up to a minute.", flush=True)
    with (
        server(home, free_port(options.port)) as environment,
        no_run_left(api := environment["PREFECT_API_URL"]),
        running([sys.executable, "-m", "deployments.serve", *given], environment, log) as serving,
    ):
        wanted = {
            "deployments": {"paused": {"eq_": False}}
        }  # they are paused while nobody serves them
        wait_for(
            lambda: httpx.post(f"{api}/deployments/count", json=wanted).json() == len(described()),
            serving,
            log,
        )
        print(
            SAID.format(ui=api.removesuffix("/api") + "/v2", api=api, root=root, home=home),
            flush=True,
        )
        status = serving.wait()
        fail(f"what serves the deployments ended with status {status}; what it said is in {log}")


if __name__ == "__main__":
    main()
