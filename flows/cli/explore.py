"""`deita explore`: look through a selection in a browser."""

from __future__ import annotations

import os
import secrets
import sys
import webbrowser
from typing import Annotated

from cyclopts import Parameter, validators

from deita_tasks import storage
from flows.cli.printing import new_console

Port = Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=65_535))]
NO_MAP = "The map is not drawn: the store has no vectors of this selection."
NO_NEIGHBOURS = "The most similar selected rows are not computed: there are too many rows."


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
    from deita_tasks.exploring.server import (
        export_page,
        listen,
        make_app,
        require_explorer,
        serve,
    )

    require_explorer()
    from deita_tasks.exploring.opening import open_explored
    from deita_tasks.exploring.table import NEIGHBOURS, X, build_table

    console = new_console()
    listener = None if export is not None else listen(port)
    with storage.scratch_folder() as folder:
        explored = open_explored(output, store)
        table = build_table(explored, folder)
        console.print(f"{table.rows.num_rows:,} rows of {explored.uri}")
        if not table.has(X):
            console.print(NO_MAP)
        else:
            console.print("The map needs a browser with WebGPU; everything else works in any.")
            if not table.has(NEIGHBOURS):
                console.print(NO_NEIGHBOURS)
        if listener is None:
            assert export is not None
            export_page(table, explored.uri, export)
            console.print(f"{export}: written; serve it with python -m http.server -d {export}")
            return
        token = secrets.token_urlsafe(16)
        app = make_app(table, explored.uri, token)
        host, number = listener.getsockname()
        address = f"http://{host}:{number}/{token}/"
        console.print(f"{address}\nCtrl-C ends it.")
        if browser and has_screen():
            webbrowser.open(address)
        serve(app, listener)


def has_screen() -> bool:
    """Return whether a browser can show a window; else it might take the terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
