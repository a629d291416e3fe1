"""A temporary Prefect server for one command, if none is configured.

Prefect starts one itself, but only when the flow begins, and after it has imported the whole server
into the command's own process. This one starts first, and gets ready while the command imports what
it needs. That saves seconds in every command. Its database is its own (`database.py`).
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from deita_tasks.addresses import without_password
from deita_tasks.config import TEMPORARY_SERVER as TEMPORARY
from deita_tasks.errors import ServerError, UsageError
from flows.cli.database import (
    create_database,
    database_settings,
    is_database_configured,
    prefect_home,
)

HOST = "127.0.0.1"
DATABASE_BYTES = 16 << 20  # of a new database and its journal, 9 MB, and of a run
PATIENCE = 180.0  # seconds, on a busy machine
CHECK_RETRIES = 1  # of a configured server that is overloaded; Prefect's own 5 take minutes
EXAMPLE_URL = "http://HOST:4200/api"
QUIET = {
    "PREFECT_UI_ENABLED": "0",
    # As Prefect starts its own: without the services that scheduled runs need.
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


def is_configured() -> bool:
    """Return whether a setting may name a server; then Prefect decides."""
    home = prefect_home()
    settings = {
        "PREFECT_API_URL",
        "PREFECT_PROFILE",
        "PREFECT_PROFILES_PATH",
        "PREFECT_SERVER_EPHEMERAL_ENABLED",
    }
    settings |= {"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"}
    pyproject = Path("pyproject.toml")
    return (
        "prefect" in sys.modules  # it has read its settings
        or not settings.isdisjoint(os.environ)
        or any(
            path.exists() for path in (home / "profiles.toml", Path("prefect.toml"), Path(".env"))
        )
        or (
            pyproject.exists()
            and "[tool.prefect" in pyproject.read_text(encoding="utf-8", errors="replace")
        )
    )


def start_server(needs_blocks: bool = False) -> Callable[[], None]:
    """Start a server that ends with this process, and point PREFECT_API_URL to it.

    needs_blocks: the run reads a block that was saved before, so the server uses Prefect's own
    database instead of an empty one.

    Return a function that waits until it answers. The server ends after Prefect's own exit
    functions, which need it: the function registered first runs last.
    """
    if is_configured():
        return check_server
    _check_home()
    port = free_port()
    folder = None
    if not (needs_blocks or is_database_configured()):
        folder = Path(tempfile.mkdtemp(prefix="deita-run-", dir=prefect_home()))
        # The flow's own result too; those of tasks are in the store.
        os.environ.setdefault("PREFECT_LOCAL_STORAGE_PATH", str(folder / "results"))
        os.environ.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")
    process = _start(port, folder)
    atexit.register(_stop, process, folder)
    os.environ[TEMPORARY] = "1"
    os.environ["PREFECT_API_URL"] = f"http://{HOST}:{port}/api"
    return lambda: _wait(process, port)


def check_server() -> None:
    """Raise UsageError if the server that Prefect's settings name does not answer."""
    from httpx import HTTPError, InvalidURL
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    url = PREFECT_API_URL.value()
    if not url:
        return
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: CHECK_RETRIES}),
            get_client(sync_client=True) as client,
        ):
            client.api_version()
    except (RuntimeError, HTTPError, InvalidURL, ValueError) as error:  # ValueError: no JSON
        problem = _describe_answer(error)
        raise UsageError(f"PREFECT_API_URL = {without_password(url)}: {problem}") from error


def _describe_answer(error: Exception) -> str:
    """Return what a server answered instead of its version, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    kind = type(error).__name__
    if status in (401, 403):
        return (
            f"the server refuses access (status {status}); set PREFECT_API_AUTH_STRING, or "
            "PREFECT_API_KEY for Prefect Cloud"
        )
    if status is not None and status >= 500:
        return f"the server fails with status {status}; look into its log, or try again later"
    if status is not None or kind == "JSONDecodeError":
        answer = "an answer that is no JSON" if status is None else f"status {status}"
        return f"no API of Prefect there ({answer}); expected an address like {EXAMPLE_URL}"
    if kind in ("UnsupportedProtocol", "InvalidURL"):
        return f"not the address of a server; expected one like {EXAMPLE_URL}"
    return (
        f"no Prefect server answers there ({error}); start it, or unset the setting to run with a "
        "temporary one"
    )


def _check_home() -> None:
    """Raise UsageError if PREFECT_HOME has no place for the server's database."""
    home = prefect_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as probe:
            probe.write(bytes(DATABASE_BYTES))
    except OSError as error:
        raise UsageError(
            f"PREFECT_HOME = {home}: {error.strerror}; expected a folder where Prefect can write "
            "its database: make room there, or set PREFECT_HOME to another"
        ) from error


def free_port(preferred: int = 0) -> int:
    """Return a free port of the loopback: `preferred`, or another if it is taken."""
    with socket.socket() as probe:
        # A port that was closed a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, preferred))
        except OSError:
            probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _start(port: int, folder: Path | None) -> subprocess.Popen[bytes]:
    # -P: a folder `flows` in the working folder is not ours. A session of its own: Ctrl-C ends only
    # the command, which then reports to the server. Complaints of the ending server would only
    # confuse the reader of the command's log.
    environment = {"PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL", **os.environ, **QUIET}
    arguments = [str(port), str(os.getpid())]
    if folder:
        environment |= database_settings(folder)
        arguments.append(str(folder))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.cli.server", *arguments],
        env=environment,
        start_new_session=True,
    )


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    """Raise ServerError if the server ends, or does not answer in time."""
    import httpx

    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(
                f"Prefect's temporary server ended with status {process.returncode}; run again, "
                f"or set PREFECT_API_URL, or a PREFECT_HOME other than {prefect_home()}"
            )
        try:
            if httpx.get(f"http://{HOST}:{port}/api/health", timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise ServerError(
        f"Prefect's temporary server did not answer in {PATIENCE:.0f} s; run again, or start "
        "one and set PREFECT_API_URL"
    )


def _stop(process: subprocess.Popen[bytes], folder: Path | None) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _remove(folder)


def serve(port: int, parent: int, folder: Path | None) -> None:
    """Be the server until the process that started it ends, killed or not.

    folder: for a database of its own; removed at the end, as a killed process cannot do it.
    """
    # Before uvicorn starts, and again when it has shut down. An exception would be printed by
    # whatever the signal interrupts, such as an import, into the log of the command.
    signal.signal(signal.SIGTERM, lambda *_: _exit(folder))
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    try:
        if folder:
            create_database(folder)
        _run_uvicorn(port)
    finally:
        _remove(folder)


def _exit(folder: Path | None) -> NoReturn:
    _remove(folder)
    os._exit(128 + signal.SIGTERM)


def _remove(folder: Path | None) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def _run_uvicorn(port: int) -> None:
    import uvicorn

    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host=HOST,
        port=port,
        log_level="error",
        lifespan="on",
    )


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    number, starter, *folders = sys.argv[1:]
    serve(int(number), int(starter), Path(folders[0]) if folders else None)
