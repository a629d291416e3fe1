"""What a finished run shows on its page in the Prefect UI."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from deita_tasks import storage
from deita_tasks.reporting.markdown import best_rows, closest_rows, code, describe_files, markdown
from deita_tasks.reporting.report import ReportData
from deita_tasks.results.records import Sweep

# FOLDER=URL: where a browser finds the files of a folder, or below an s3:// URI.
FILE_LINKS = "DEITA_FILE_LINKS"
SMALL = 0.1  # a number below it is shown with two digits instead of two decimals


def show_selection(data: ReportData, figures: Mapping[str, bytes], output: str) -> None:
    """Show the report in brief with its figures, the best rows and the near misses."""
    counts = data.manifest.counts
    create_markdown_artifact(
        markdown(data, figures, output, browse_url(output)),
        key="deita-report",
        description=f"{counts.selected:,} of {counts.read:,} rows selected, in {code(output)}",
    )
    show_table(
        best_rows(data),
        "deita-best",
        "The selected conversations with the highest evol scores; complexity and quality are "
        "means over the turns. Whole texts are in report.html",
    )
    show_table(
        closest_rows(data),
        "deita-closest",
        "Near misses: rejected conversations closest to the similarity limit, each with the "
        "selected one that blocked it. Whole texts are in report.html",
    )


def show_sweep(sweep: Sweep) -> None:
    """Show the table of a sweep, and its files."""
    show_table(
        sweep.selections,
        "deita-sweep",
        f"The selections of the sweep, and random ones of equal size; in {code(sweep.uri)}",
    )
    show_files(sweep.uri, sweep.manifest.outputs)


def show_files(output: str, names: Iterable[str]) -> None:
    """Show where the files of a result are, as links if a browser can open them."""
    text = describe_files(output, ("manifest.json", *names), browse_url(output))
    create_markdown_artifact(text, key="deita-files", description="The files of the result")


def show_table(rows: Sequence[Mapping[str, Any]], key: str, caption: str) -> None:
    """Show a table whose numbers have two decimals; nothing if it has no rows."""
    if rows:
        table: list[dict[str, Any]] = [
            {name: table_cell(value) for name, value in row.items()} for row in rows
        ]
        create_table_artifact(table, key=key, description=caption)


def table_cell(value: Any) -> Any:
    """Return a number with two decimals, as text: JSON would drop its zeros."""
    if not isinstance(value, float):
        return value
    if value and abs(value) < SMALL:
        return f"{value:.2g}"
    return f"{value:.2f}"


def browse_url(output: str) -> str | None:
    """Return the address of an output folder in a browser, None if DEITA_FILE_LINKS has none."""
    folder, _, url = os.environ.get(FILE_LINKS, "").partition("=")
    path = storage.path_in(output, folder) if folder and url else None
    return None if path is None else f"{url.rstrip('/')}/{quote(path)}".rstrip("/")
