"""Exporting: the subset in the formats that trainers read, the ledger, the manifest, the report;
one file a format.
"""

from typing import Any

from deita_tasks.components import Table, load_component
from deita_tasks.exporting.base import Exporter

FORMATS: Table = {
    "sharegpt": "deita_tasks.exporting.sharegpt:ShareGPT",
    "messages": "deita_tasks.exporting.messages:Messages",
    "alpaca": "deita_tasks.exporting.alpaca:Alpaca",
    "prompt_response": "deita_tasks.exporting.prompt_response:PromptResponse",
    "parquet": "deita_tasks.exporting.parquet:Parquet",
    "hf_dataset": "deita_tasks.exporting.hf_dataset:HFDataset",
}


def load_exporter(name: str, **options: Any) -> Exporter:
    """The output format `name` of FORMATS. Raises UsageError for a wrong name or option."""
    exporter: Exporter = load_component(FORMATS, "output format", name, options)
    return exporter
