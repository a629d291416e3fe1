"""What a finished run shows on its page in the Prefect UI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from deita_tasks.reporting.markdown import best_rows, closest_rows, code, markdown
from deita_tasks.reporting.report import ReportData
from deita_tasks.results.records import Sweep


def show_selection(data: ReportData, figures: Mapping[str, bytes], output: str) -> None:
    """Show the report in brief with its figures, the best rows and the near misses."""
    counts = data.manifest.counts
    place: Any = code(output)
    create_markdown_artifact(
        markdown(data, figures, output),
        key="deita-report",
        description=f"{counts.selected:,} of {counts.read:,} rows selected, in {place}",
    )
    best = best_rows(data)
    if best:
        create_table_artifact(
            best,
            key="deita-best",
            description="The selected conversations with the highest evol scores",
        )
    near_misses = closest_rows(data)
    if near_misses:
        create_table_artifact(
            near_misses,
            key="deita-closest",
            description="Near misses: rejected conversations closest to the similarity limit",
        )


def show_sweep(sweep: Sweep) -> None:
    """Show the table of a sweep."""
    create_table_artifact(
        sweep.selections,
        key="deita-sweep",
        description=f"The selections of the sweep; the whole result is in {code(sweep.uri)}",
    )
