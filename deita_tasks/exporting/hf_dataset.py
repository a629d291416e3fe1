"""A folder that is a Hugging Face dataset: Parquet shards and a card."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import yaml

from deita_tasks import storage
from deita_tasks.exporting.arrow import JSON_TEXT, storage_type
from deita_tasks.exporting.base import OutputRow, Survey
from deita_tasks.exporting.parquet import Parquet, column_types, write_rows
from deita_tasks.strict_json import JSON
from deita_tasks.templating import escape_markdown, template_environment

if TYPE_CHECKING:
    from deita_tasks.manifest import Manifest

CHARACTERS_PER_SHARD = 300_000_000
LICENCE_COLUMNS = ("license", "licence")
# The hub's identifiers of licences that are common for datasets
# (https://huggingface.co/docs/hub/repositories-licenses).
HUB_LICENCES = frozenset(
    {
        "apache-2.0",
        "mit",
        "bsd-3-clause",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nd-4.0",
        "odc-by",
        "odbl",
        "pddl",
        "gfdl",
        "gpl-3.0",
        "cdla-permissive-2.0",
        "unlicense",
    }
)
SIZE_CATEGORIES = [
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
]


class HFDataset(Parquet):
    """data/train-*.parquet in the format of Parquet, and README.md, the dataset's card.

    The folder can be loaded with datasets.load_dataset(folder).
    """

    name: ClassVar[str] = "hf_dataset"
    tallied_columns: ClassVar[tuple[str, ...]] = ("source", "dataset", *LICENCE_COLUMNS)

    def write(
        self,
        rows: Iterable[OutputRow],
        survey: Survey,
        folder: Path,
        manifest: Manifest | None,
    ) -> list[Path]:
        shards = max(1, math.ceil(survey.characters / CHARACTERS_PER_SHARD))
        rows_per_shard = math.ceil(survey.rows / shards)
        remaining = iter(rows)
        paths = [
            folder / "data" / f"train-{shard:05}-of-{shards:05}.parquet" for shard in range(shards)
        ]
        for path in paths:
            write_rows(islice(remaining, rows_per_shard), column_types(survey), path)
        card = folder / "README.md"
        storage.write_bytes(str(card), render_card(survey, manifest).encode())
        return [*paths, card]


def render_card(survey: Survey, manifest: Manifest | None) -> str:
    """Return the card: metadata for the hub, then the subset's columns, sources and provenance."""
    environment = template_environment(
        "deita_tasks.exporting", keep_trailing_newline=True, finalize=_escape_text
    )
    licences = sum((survey.tallies[name] for name in LICENCE_COLUMNS), Counter[str]())
    metadata = front_matter(survey.rows, licences)
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    types = {name: _describe_column(column) for name, column in survey.extra_types.items()}
    tallies = {name: tally.most_common(20) for name, tally in survey.tallies.items() if tally}
    return environment.get_template("card.md.jinja").render(
        front=Verbatim(front),
        fingerprints=Verbatim(manifest.pretty(manifest.fingerprints)) if manifest else None,
        survey=survey,
        manifest=manifest,
        licences=licences,
        tallies=tallies,
        types=types,
    )


class Verbatim(str):
    """Text that goes into the card as it is."""


def _escape_text(value: Any) -> Any:
    """Escape every text that the template inserts into the card."""
    is_text = isinstance(value, str) and not isinstance(value, Verbatim)
    return escape_markdown(value) if is_text else value


def _describe_column(column: pa.DataType) -> str:
    return "JSON text" if column == JSON_TEXT else str(storage_type(column))


def front_matter(rows: int, licences: Counter[str]) -> dict[str, JSON]:
    """Return the metadata of the card (https://huggingface.co/docs/hub/datasets-cards)."""
    size = next((name for limit, name in SIZE_CATEGORIES if rows < limit), "n>10M")
    return {
        "pretty_name": f"DEITA selection of {rows:,} conversations",
        "license": _hub_licence(rows, licences),
        "task_categories": ["text-generation"],
        "tags": ["instruction-tuning", "data-selection", "deita"],
        "size_categories": [size],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
            }
        ],
    }


def _hub_licence(rows: int, licences: Counter[str]) -> JSON:
    """Return the hub's identifiers of the licences if every row states a known one."""
    identifiers = sorted({name.strip().lower() for name in licences})
    if not identifiers:
        return "unknown"
    if licences.total() == rows and HUB_LICENCES.issuperset(identifiers):
        return identifiers
    return "other"
