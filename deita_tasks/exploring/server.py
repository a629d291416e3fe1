"""Serve the explorer on this machine alone, or write a copy of it. Embedding Atlas does the rest.

The address has a token, which the browser gets back as a cookie: other people on the machine cannot
read the texts, and no other page in the browser can. The server answers to names of this machine
alone, so that no page can reach it under a name of its own (DNS rebinding). The page loads nothing
from anywhere else.
"""

from __future__ import annotations

import importlib.util
import secrets
import socket
from pathlib import Path
from typing import Any

from deita_tasks import storage
from deita_tasks.errors import MissingExtra, OutputExists, UsageError
from deita_tasks.exploring.page import page_properties
from deita_tasks.exploring.table import ExplorerTable

HOST = "127.0.0.1"
NAMES = [HOST, "localhost"]
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src data: blob:; worker-src 'self' blob:; "
    "connect-src 'self' blob: data:; frame-ancestors 'none'"
)
PACKAGES = ("embedding_atlas", "duckdb")


def require_explorer() -> None:
    """Raise MissingExtra if a package of the extra is not installed; import none."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra("explore", package.replace("_", "-"), "explore")


def _data_source(table: ExplorerTable, name: str) -> Any:
    from embedding_atlas.data_source import DataSource

    metadata = {"props": page_properties(table)}
    identifier = storage.digest_of({"name": name, **metadata})
    return DataSource(identifier, table.rows, metadata)


def _static_files() -> str:
    """Return the folder with the files of the page."""
    import embedding_atlas

    return str(Path(str(embedding_atlas.__file__)).parent / "static")


def export_page(table: ExplorerTable, name: str, folder: str) -> None:
    """Write the page and its data to a new folder, whole or not at all."""
    if not storage.is_local(folder):
        raise UsageError(f"--export {folder}: expected a folder of this machine")
    target = Path(storage.absolute(folder))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputExists(f"{folder}: exists and is not empty; expected a new folder")
    draft = storage.draft_path(str(target))
    _data_source(table, name).export_to_folder(_static_files(), draft)
    Path(draft).replace(target)


def make_app(table: ExplorerTable, name: str, token: str) -> Any:
    """Return the server of a table, an ASGI application. name: of what the table shows."""
    from embedding_atlas.server import make_server
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    source = _data_source(table, name)
    app = make_server(source, static_path=_static_files(), duckdb_uri="server")
    app.middleware("http")(Guard(token))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=NAMES, www_redirect=False)
    return app


class Guard:
    """Lets in requests with the token, and sends the browser away with a cookie that holds it."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._cookie = f"deita-explore-{secrets.token_hex(4)}"  # two explorers, two cookies

    async def __call__(self, request: Any, call_next: Any) -> Any:
        from starlette.responses import PlainTextResponse, RedirectResponse

        if self._is_token(request.query_params.get("token")):
            response: Any = RedirectResponse("/", status_code=303)
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            return response
        if not self._is_token(request.cookies.get(self._cookie)):
            message = "Open the address that `deita explore` has printed: it has a token.\n"
            return PlainTextResponse(message, status_code=403)
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def _is_token(self, text: str | None) -> bool:
        return secrets.compare_digest((text or "").encode(), self._token.encode())


def listen(port: int | None) -> socket.socket:
    """Return a socket on this machine alone; any free port by default."""
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
    """Answer requests until the process is interrupted, then return."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return
    finally:
        listener.close()
