"""A PostgreSQL server of our own on the loopback, and a Prefect server on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from deployments.ui import server_environment, start_process, wait_for
from flows.cli.server import HOST, free_port

USER = "postgres"  # PostgreSQL refuses to run as root


def find_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest version's; None if there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parts[-2])
    on_path = shutil.which("initdb")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    return folders[-1] if folders else None


@contextmanager
def start_postgres(folder: Path) -> Iterator[str]:
    """Start PostgreSQL with an empty database in `folder`; give its URL for Prefect."""
    programs = find_programs()
    if programs is None:
        raise FileNotFoundError("no PostgreSQL: apt-get install postgresql")
    folder.mkdir(parents=True, exist_ok=True)
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    data, port = folder / "data", free_port()
    initdb: list[str | Path] = [
        programs / "initdb",
        "--auth=trust",
        f"--username={USER}",
        "--pgdata",
        data,
    ]
    subprocess.run([*as_user, *initdb], check=True, capture_output=True)
    # Its default of 100 connections is enough for one Prefect server, with 15 at most.
    options = ["-D", data, "-h", HOST, "-p", str(port), "-k", folder]
    log = folder / "postgres.log"
    with start_process([*as_user, *map(str, (programs / "postgres", *options))], {}, log) as server:
        ask = [str(programs / "pg_isready"), "-q", "-h", HOST, "-p", str(port)]
        wait_for(lambda: subprocess.run(ask, check=False).returncode == 0, server, log)
        yield f"postgresql+asyncpg://{USER}@{HOST}:{port}/{USER}"


@contextmanager
def start_prefect(home: Path, database: str | None) -> Iterator[dict[str, str]]:
    """Start a Prefect server; give its clients' environment. database: None for its SQLite."""
    home.mkdir(parents=True, exist_ok=True)
    environment = server_environment(home, free_port())
    if database:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    log = home / "server.log"
    command = [sys.executable, "-m", "prefect", "server", "start"]
    health = f"{environment['PREFECT_API_URL']}/health"
    with start_process(command, environment, log) as server:
        wait_for(lambda: httpx.get(health).is_success, server, log)
        yield environment
