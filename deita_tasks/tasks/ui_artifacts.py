"""What a finished run shows on its page in the Prefect UI."""

from collections.abc import Mapping
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from deita_tasks.reporting.markdown import best_rows, closest_rows, code, markdown
from deita_tasks.reporting.report import ReportData


def show_selection(data: ReportData, figures: Mapping[str, bytes], output: str) -> None:
    """The report in brief, with its figures; the best of the selection; the rejected rows nearest
    to the limit.
    """
    told: Any = (
        f"{data.manifest.counts.selected:,} of {data.manifest.counts.read:,} rows selected, in "
        f"{code(output)}"
    )
    create_markdown_artifact(markdown(data, figures, output), key="deita-report", description=told)
    best, closest = best_rows(data), closest_rows(data)
    if best:
        create_table_artifact(
            best,
            key="deita-best",
            description="The selected conversations with the highest evol scores",
        )
    if closest:
        create_table_artifact(
            closest,
            key="deita-closest",
            description="The rejected conversations least above the limit",
        )


def show_sweep(manifest: Mapping[str, Any], output: str) -> None:
    """The table of a sweep."""
    create_table_artifact(
        manifest["selections"],
        key="deita-sweep",
        description=f"Selections compared; the whole in {code(output)}",
    )
