"""Serve the explorer on this machine alone, or write a copy of it. Embedding Atlas does the rest.

The address has a token that nobody can guess: neither other people on the machine nor other pages
in the browser can read the texts. The server answers to names of this machine alone, so that no
page can reach it under a name of its own (DNS rebinding). The page loads nothing from elsewhere.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path
from typing import Any

from deita_tasks import storage
from deita_tasks.errors import MissingExtra, OutputExists, UsageError
from deita_tasks.exploring.page import page_properties
from deita_tasks.exploring.table import ExplorerTable

HOST = "127.0.0.1"
NAMES = [HOST, "localhost"]
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src data: blob:; "
    "worker-src 'self' blob:; connect-src 'self' data: blob:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PACKAGES = ("embedding_atlas", "duckdb")


def require_packages() -> None:
    """Raise MissingExtra if a package of the extra is not installed; import none."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra("explore", package.replace("_", "-"), "explore")


def _data_source(table: ExplorerTable, name: str) -> Any:
    """Return the table and the page as Embedding Atlas takes them.

    It keeps labels of a map in a cache by `name` and the properties of the page.
    """
    from embedding_atlas.data_source import DataSource

    metadata = {"props": page_properties(table)}
    identifier = storage.digest_of({"name": name, **metadata})
    return DataSource(identifier, table.rows, metadata)


def _static_files() -> str:
    """Return the folder with the files of the page."""
    import embedding_atlas

    return str(Path(str(embedding_atlas.__file__)).parent / "static")


def export_page(table: ExplorerTable, name: str, folder: str) -> None:
    """Write the page and its data to a new folder, whole or not at all.

    Raises OutputExists if the folder holds anything, UsageError if it is not of this machine.
    """
    if not storage.is_local(folder):
        raise UsageError(f"--export {folder}: expected a folder of this machine")
    target = Path(storage.absolute(folder))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputExists(f"{folder}: exists and is not empty; expected a new folder")
    draft = storage.draft_path(str(target))
    source = _data_source(table, name)
    try:
        source.export_to_folder(_static_files(), draft)
        Path(draft).replace(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def make_app(table: ExplorerTable, name: str, token: str) -> Any:
    """Return the server of a table, an ASGI application. Its page is /<token>/.

    name: of what the table shows.
    """
    from embedding_atlas.server import make_server
    from starlette.applications import Starlette
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Mount

    source = _data_source(table, name)
    page = make_server(source, static_path=_static_files(), duckdb_uri="server")
    page.middleware("http")(_add_headers)
    app = Starlette(routes=[Mount(f"/{token}", page)])
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=NAMES, www_redirect=False)
    return app


async def _add_headers(request: Any, call_next: Any) -> Any:
    """Answer a request, with HEADERS."""
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


def listen(port: int | None) -> socket.socket:
    """Return a socket that this machine alone can reach; any free port by default.

    Raises UsageError for a port that is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port or 0))
    except OSError as error:
        listener.close()
        raise UsageError(f"--port {port}: {error.strerror}; expected a free port") from error
    listener.listen()
    return listener


def serve(app: Any, listener: socket.socket) -> None:
    """Answer requests until the process is interrupted (Ctrl+C), then return. Closes `listener`."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return
    finally:
        listener.close()
