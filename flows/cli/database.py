"""The database of a temporary server: its own, empty at first, and gone when the server ends.

Prefect's database in its home grows by about 1 MB in each command, and servers that write to it at
the same time wait for each other for up to 60 seconds.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

DATABASE_SETTINGS = ("PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_")

# Nobody can look at the server after the command, so it records no more than the flow needs.
OFF = (
    "PREFECT_SERVER_DATABASE_MIGRATE_ON_START",  # `create_database` has done it
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START",
    # What it remembers is about the database in Prefect's home.
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_ENABLED",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED",
)


def prefect_home() -> Path:
    """Return where Prefect keeps its settings and its database."""
    return Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()


def is_database_configured() -> bool:
    """Return whether the environment names a database for Prefect's server."""
    return any(name.startswith(DATABASE_SETTINGS) for name in os.environ)


def database_settings(folder: Path) -> dict[str, str]:
    """Return the settings of a server whose database lies in `folder`."""
    url = f"sqlite+aiosqlite:///{_database(folder)}"
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url, **dict.fromkeys(OFF, "false")}


def create_database(folder: Path) -> None:
    """Create the database in `folder`, with Prefect's tables.

    Prefect's 110 migrations take seconds, so an empty database is kept in Prefect's home for later.
    Needs `database_settings` in the environment.
    """
    empty = prefect_home() / f"deita-empty-{metadata.version('prefect')}.db"
    try:
        shutil.copyfile(empty, _database(folder))
    except OSError:
        _migrate()
        with suppress(OSError, sqlite3.Error):  # the next command migrates again
            _keep(_database(folder), empty)


def _database(folder: Path) -> Path:
    return folder / "prefect.db"


def _migrate() -> None:
    from prefect.server.database import provide_database_interface

    asyncio.run(provide_database_interface().create_db())


def _keep(database: Path, empty: Path) -> None:
    """Copy a database to `empty`, whole or not at all: another command may do the same."""
    empty.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=empty.parent) as folder:
        draft = Path(folder, empty.name)
        connection = sqlite3.connect(database)
        try:
            connection.execute("VACUUM INTO ?", (str(draft),))
        finally:
            connection.close()
        draft.replace(empty)
