"""The server that a command starts for itself: only where none is configured, and never longer than
the command lives.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deita_tasks.errors import UsageError
from flows.cli import database, server

URLS = (
    "PREFECT_API_URL",
    "PREFECT_PROFILE",
    "PREFECT_PROFILES_PATH",
    "PREFECT_SERVER_EPHEMERAL_ENABLED",
)


@pytest.fixture
def unspoken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing says which server to use, and Prefect is not loaded yet; the folder that the command
    is called in.
    """
    for name in URLS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_port_that_is_taken_is_not_asked_for() -> None:
    with socket.socket() as taken:
        taken.bind((server.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert server.free_port(port) != port
    assert server.free_port(port) == port


def test_where_nothing_is_said_there_is_none(unspoken: Path) -> None:
    assert not server.is_configured()


@pytest.mark.parametrize("name", URLS)
def test_what_the_environment_says_holds(
    unspoken: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "x")
    assert server.is_configured()


@pytest.mark.parametrize(
    ("path", "content", "spoken"),
    [
        ("home/profiles.toml", "", True),
        ("prefect.toml", "", True),
        (".env", "", True),
        ("pyproject.toml", "[tool.prefect]", True),
        ("pyproject.toml", "[tool.ruff]", False),
    ],
)
def test_what_a_file_may_say_is_left_to_prefect(
    unspoken: Path, path: str, content: str, spoken: bool
) -> None:
    (unspoken / path).parent.mkdir(exist_ok=True)
    (unspoken / path).write_text(content)
    assert server.is_configured() == spoken


def test_a_process_that_has_loaded_prefect_has_its_settings(
    unspoken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prefect", object())  # type: ignore[misc]
    assert server.is_configured()
    assert server.start_server() is server.check_server  # nothing is started


@pytest.mark.slow
def test_a_configured_server_that_is_away_is_said_in_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    environment["PREFECT_HOME"] = str(tmp_path)
    code = "from flows.cli.server import start_server; start_server()()"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    last = ended.stderr.strip().splitlines()[-1]
    assert "PREFECT_API_URL = http://127.0.0.1:9/api: no Prefect server answers there" in last


class Answer(BaseHTTPRequestHandler):
    """Answers everything with the status that the path begins with."""

    def do_GET(self) -> None:
        status = int(self.path.split("/")[1])
        body = b"<html>" if status == 200 else b'{"detail": "no"}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    """The address of a server that is none of Prefect's."""
    with ThreadingHTTPServer((server.HOST, 0), Answer) as stub:
        threading.Thread(target=stub.serve_forever, daemon=True).start()
        yield f"http://{server.HOST}:{stub.server_port}"
        stub.shutdown()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/401/api", "the server refuses access (status 401); set PREFECT_API_AUTH_STRING"),
        ("/403/api", "the server refuses access (status 403); set PREFECT_API_AUTH_STRING"),
        ("/404/api", "no API of Prefect there (status 404); expected an address like http://HOST"),
        ("/200", "no API of Prefect there (an answer that is no JSON); expected an address like"),
        ("/500/api", "the server fails with status 500; look into its log, or try again later"),
        ("nonsense", "not the address of a server; expected one like http://HOST:4200/api"),
    ],
)
def test_a_configured_server_that_is_none_of_prefects(path: str, message: str, stub: str) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    url = f"{stub}{path}" if path.startswith("/") else path
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(UsageError) as caught:
        server.check_server()
    assert str(caught.value).startswith(f"PREFECT_API_URL = {url}: {message}")
    assert "\n" not in str(caught.value)


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_command(number: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import os; from flows.cli.server import start_server; start_server()(); "
        "print(os.environ['PREFECT_API_URL'], flush=True); input()"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
    }
    home = tmp_path / "home"
    environment |= {"PREFECT_HOME": str(home)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline()
        assert url.startswith("http://127.0.0.1:"), "it answers"
        port = int(url.split(":")[2].split("/")[0])
        assert answers(port)
        process.send_signal(number)
    patience = time.monotonic() + 30
    while (answers(port) or any(home.glob("deita-run-*"))) and time.monotonic() < patience:
        time.sleep(0.2)
    assert not answers(port)
    (kept,) = home.iterdir()  # its own database is gone
    assert re.fullmatch(r"deita-empty-.+\.db", kept.name)


def test_a_signal_ends_it_quietly_wherever_it_arrives(tmp_path: Path) -> None:
    """Where Python ignores exceptions, it prints them: here in a finalizer, as in some imports."""
    folder = tmp_path / "run"
    folder.mkdir()
    code = f"""if True:
        import os, signal
        from pathlib import Path
        from flows.cli import server

        class Interrupted:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)

        server.create_database = lambda folder: None
        server._run_uvicorn = lambda port: (Interrupted(), None)[1]
        server.serve(0, os.getppid(), Path({str(folder)!r}))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 128 + signal.SIGTERM
    assert not folder.exists()


@pytest.mark.parametrize(
    ("setting", "needs_blocks", "own"),
    [
        (None, False, True),
        (None, True, False),
        ("PREFECT_SERVER_DATABASE_CONNECTION_URL", False, False),
        ("PREFECT_API_DATABASE_CONNECTION_URL", False, False),
        ("PREFECT_SERVER_DATABASE_HOST", False, False),
    ],
)
def test_its_database_is_its_own_unless_another_is_meant(
    unspoken: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str | None,
    needs_blocks: bool,
    own: bool,
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(tempfile, "tempdir", str(unspoken))
    monkeypatch.setattr(server.atexit, "register", lambda *_: None)
    started: dict[str, str] = {}

    def start(command: list[str], env: dict[str, str], **_: object) -> None:
        started.update(env, folder=command[-1])

    monkeypatch.setattr(server.subprocess, "Popen", start)
    if setting:
        os.environ[setting] = "postgresql+asyncpg://db.example/prefect"
    server.start_server(needs_blocks)
    url = started.get("PREFECT_SERVER_DATABASE_CONNECTION_URL", "")
    assert (url == f"sqlite+aiosqlite:///{started['folder']}/prefect.db") is own
    assert ("PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED" in started) is own
    assert ("PREFECT_LOGGING_TO_API_ENABLED" in os.environ) is own


def test_an_empty_database_is_kept_for_the_next_command(
    unspoken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [unspoken / "first", unspoken / "second"]
    migrated = []

    def migrate() -> None:
        with closing(sqlite3.connect(folders[0] / "prefect.db")) as connection:
            connection.execute("CREATE TABLE flow (id)")
        migrated.append(1)

    monkeypatch.setattr(database, "_migrate", migrate)
    for folder in folders:
        folder.mkdir()
        database.create_database(folder)
        with closing(sqlite3.connect(folder / "prefect.db")) as connection:
            assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("flow",)]
    assert migrated == [1]


def test_a_home_that_cannot_be_written_is_no_failure(
    unspoken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (unspoken / "home").write_text("a file")
    monkeypatch.setattr(database, "_migrate", (unspoken / "prefect.db").touch)
    database.create_database(unspoken)
