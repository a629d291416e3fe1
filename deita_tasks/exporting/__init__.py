"""Exporting: write the selected conversations in the formats that trainers read.

One module per format.
"""

from typing import Any

from deita_tasks.catalogue import OUTPUT_FORMATS as FORMATS
from deita_tasks.components import load_component
from deita_tasks.exporting.base import Exporter

__all__ = ["FORMATS", "Exporter", "load_exporter"]


def load_exporter(name: str, **options: Any) -> Exporter:
    """Return the exporter of the output format `name`, a name in FORMATS.

    Raises UsageError for an unknown name or a wrong option.
    """
    exporter: Exporter = load_component(FORMATS, "output format", name, options)
    return exporter
