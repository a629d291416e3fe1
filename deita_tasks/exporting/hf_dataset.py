"""A Hugging Face dataset folder: Parquet shards and a card."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jinja2
import yaml

from deita_tasks import storage
from deita_tasks.exporting.arrow import settled
from deita_tasks.exporting.base import Survey
from deita_tasks.exporting.parquet import Parquet, column_types, write_rows

if TYPE_CHECKING:
    from deita_tasks.manifest import Manifest

CHARACTERS_A_SHARD = 300_000_000
LICENCE_COLUMNS = ("license", "licence")
# The identifiers of the hub (https://huggingface.co/docs/hub/repositories-licenses) that datasets
# are commonly under.
HUB_LICENCES = frozenset({
    "apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0",
    "cc-by-nd-4.0", "odc-by", "odbl", "pddl", "gfdl", "gpl-3.0", "cdla-permissive-2.0", "unlicense",
})  # fmt: skip
SIZES = [
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
]


class HFDataset(Parquet):
    """data/train-*.parquet as the format parquet writes them, and README.md, the card; loads with
    datasets.load_dataset(folder).
    """

    name: ClassVar[str] = "hf_dataset"
    tallied_columns: ClassVar[tuple[str, ...]] = ("source", "dataset", *LICENCE_COLUMNS)

    def write(
        self,
        rows: Iterable[dict[str, Any]],
        survey: Survey,
        folder: Path,
        manifest: Manifest | None,
    ) -> list[Path]:
        shards = max(1, math.ceil(survey.characters / CHARACTERS_A_SHARD))
        rows_a_shard = math.ceil(survey.rows / shards)
        waiting = iter(rows)
        paths = [
            folder / "data" / f"train-{shard:05}-of-{shards:05}.parquet" for shard in range(shards)
        ]
        for path in paths:
            write_rows(islice(waiting, rows_a_shard), column_types(survey), path)
        card = folder / "README.md"
        storage.write_bytes(str(card), card_text(survey, manifest).encode())
        return [*paths, card]


def card_text(survey: Survey, manifest: Manifest | None) -> str:
    """The card: what the hub reads, then what the subset is, where it came from, how it was made."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deita_tasks.exporting", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=as_cell,
    )
    licences = sum((survey.values[name] for name in LICENCE_COLUMNS), Counter[str]())
    front = yaml.safe_dump(front_matter(survey.rows, licences), sort_keys=False, allow_unicode=True)
    types = {
        name: str(settled(kind)) if kind else "JSON text" for name, kind in survey.types.items()
    }
    tallies = {name: tally.most_common(20) for name, tally in survey.values.items() if tally}
    template = environment.get_template("card.md.jinja")
    return template.render(
        front=Verbatim(front),
        survey=survey,
        manifest=manifest,
        licences=licences,
        tallies=tallies,
        types=types,
    )


class Verbatim(str):
    """Text that the card holds as it is."""


def as_cell(value: Any) -> Any:
    """A value safe in a Markdown table or sentence: one line, nothing in it read as markup."""
    if isinstance(value, Verbatim) or not isinstance(value, str):
        return value
    line = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|~#" else letter for letter in line)


def front_matter(rows: int, licences: Counter[str]) -> dict[str, Any]:
    """The YAML head of the card, as the hub defines it
    (https://huggingface.co/docs/hub/datasets-cards).
    """
    identifiers = sorted({name.strip().lower() for name in licences})
    known = bool(identifiers) and HUB_LICENCES.issuperset(identifiers) and licences.total() == rows
    return {
        "pretty_name": f"DEITA selection of {rows:,} conversations",
        "license": identifiers if known else "other" if identifiers else "unknown",
        "task_categories": ["text-generation"],
        "tags": ["instruction-tuning", "data-selection", "deita"],
        "size_categories": [next((name for limit, name in SIZES if rows < limit), "n>10M")],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
            }
        ],
    }
