"""A folder laid out as a Hugging Face dataset: Parquet shards under data/."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import ClassVar

from deita_tasks.exporting.base import OutputRow, Survey
from deita_tasks.exporting.parquet import Parquet, column_types, write_rows

CHARACTERS_PER_SHARD = 300_000_000


class HFDataset(Parquet):
    """data/train-*.parquet in the format of Parquet, as the hub lays out its datasets."""

    name: ClassVar[str] = "hf_dataset"

    def write(self, rows: Iterable[OutputRow], survey: Survey, folder: Path) -> list[Path]:
        """Return the shards, at least one, in the order of the rows.

        Each has the same number of rows, the last ones fewer; at most about CHARACTERS_PER_SHARD.
        """
        shards = max(1, math.ceil(survey.characters / CHARACTERS_PER_SHARD))
        rows_per_shard = math.ceil(survey.rows / shards)
        remaining = iter(rows)
        paths = [
            folder / "data" / f"train-{shard:05}-of-{shards:05}.parquet" for shard in range(shards)
        ]
        for path in paths:
            write_rows(islice(remaining, rows_per_shard), column_types(survey), path)
        return paths
