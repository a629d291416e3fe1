"""`deita explore`: look through a selection in a browser."""

from __future__ import annotations

import os
import secrets
import sys
import webbrowser
from socket import socket
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter, validators

from deita_tasks import storage
from flows.cli.printing import new_console

if TYPE_CHECKING:
    from deita_tasks.exploring.table import ExplorerTable

Port = Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=65_535))]
NO_MAP = "There is no map: the store has no vectors of these rows."
NEEDS_WEBGPU = "The map needs a browser with WebGPU and shader-f16; the rest works in any."
NO_NEIGHBOURS = "The most similar selected rows are not computed: there are too many rows."


class Explorer(NamedTuple):
    """What the page shows, and where it comes from."""

    uri: str
    table: ExplorerTable


def explore(
    output: str,
    /,
    *,
    store: str | None = None,
    port: Port = None,
    browser: bool = True,
    export: str | None = None,
) -> None:
    """Look through a selection in a browser: search texts, filter, see rejected rows and why.

    Parameters
    ----------
    output
        Folder or s3:// URI of the result of `deita select`, of `deita reselect`, whose latest
        version counts, or of one version. A store shows its newest selection, a pool its rows.
    store
        Store of the run, if it has moved since.
    port
        Port on this machine; any free one by default.
    browser
        Open a browser. Only this machine can reach the address, and only with its token.
    export
        Write the page and its data to this new folder instead, for any web server.
    """
    from deita_tasks.exploring import server

    server.require_packages()
    listener = None if export is not None else server.listen(port)
    with storage.scratch_folder() as folder:
        explorer = _open(output, store, folder)
        if listener is None:
            _export(explorer, str(export))
        else:
            _serve(explorer, listener, browser)


def _open(output: str, store: str | None, folder: str) -> Explorer:
    """Put the table together, and print what is in it."""
    from deita_tasks.exploring.opening import open_source
    from deita_tasks.exploring.table import NEIGHBOURS, X, build_table

    source = open_source(output, store)
    table = build_table(source, folder)
    console = new_console()
    console.print(f"{table.rows.num_rows:,} rows of {source.uri}")
    if not table.has(X):
        console.print(NO_MAP)
    else:
        console.print(NEEDS_WEBGPU)
        if not table.has(NEIGHBOURS):
            console.print(NO_NEIGHBOURS)
    return Explorer(source.uri, table)


def _export(explorer: Explorer, folder: str) -> None:
    from deita_tasks.exploring.server import export_page

    export_page(explorer.table, explorer.uri, folder)
    console = new_console()
    console.print(f"{folder}: written; python -m http.server -b 127.0.0.1 -d {folder}")
    console.print("serves it. It holds all texts: keep it where they may be read.")


def _serve(explorer: Explorer, listener: socket, browser: bool) -> None:
    """Serve the page until Ctrl-C."""
    from deita_tasks.exploring import server

    token = secrets.token_urlsafe(16)
    app = server.make_app(explorer.table, explorer.uri, token)
    host, port = listener.getsockname()
    address = f"http://{host}:{port}/{token}/"
    new_console().print(f"{address}\nCtrl-C ends it.")
    if browser and has_screen():
        webbrowser.open(address)
    server.serve(app, listener)


def has_screen() -> bool:
    """Return whether a browser can show a window; else it might take the terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
