"""The folder of a subset: its files, its card, and the files that trainers read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deita_tasks import storage
from deita_tasks.exporting.base import Exporter, ExportRow, OutputRow, Survey
from deita_tasks.exporting.card import CARD_FILE, Contents, DataFiles, render_card
from deita_tasks.exporting.features import ColumnTypes, mixed_columns, parquet_types
from deita_tasks.exporting.layout import Layout
from deita_tasks.exporting.trainers import files_of, make_recipes

if TYPE_CHECKING:
    from deita_tasks.manifest import Manifest


def export_folder(
    exporter: Exporter, rows: Iterable[ExportRow], folder: Path, manifest: Manifest | None = None
) -> list[Path]:
    """Write `rows`, in order, into the local `folder`, and return the files.

    Beside the files of the subset are README.md, by which `datasets` loads them and nothing else,
    and dataset_info.json and axolotl.yaml for trainers. `rows` is read twice. Raises UsageError,
    before anything is written, for a conversation that the format cannot hold.
    """
    survey = exporter.survey(rows)
    types = ColumnTypes()
    layout = Layout()
    output_rows = _watch(exporter, rows, survey, types, layout)
    files = exporter.write(output_rows, survey, folder)
    is_parquet = files[0].suffix == ".parquet"
    contents = Contents(
        survey=survey,
        layout=layout,
        types=parquet_types(files[0]) if is_parquet else types.stored(),
        files=DataFiles.describe(folder, files),
    )
    json_columns = contents.json_columns
    unreadable = json_columns if is_parquet else mixed_columns(files[0], json_columns)
    adds_nulls = is_parquet and not layout.even_turns
    recipes = make_recipes(layout, contents.files.place, unreadable, adds_nulls)
    texts = {CARD_FILE: render_card(contents, recipes, manifest), **files_of(recipes)}
    for name, text in texts.items():
        storage.write_bytes(str(folder / name), text.encode())
    return [*files, *(folder / name for name in texts)]


def _watch(
    exporter: Exporter,
    rows: Iterable[ExportRow],
    survey: Survey,
    types: ColumnTypes,
    layout: Layout,
) -> Iterator[OutputRow]:
    """Give the output rows, and include each in `types` and `layout`."""
    for row in rows:
        output = exporter.output_row(row, survey)
        types.add(output)
        beside = {survey.output_name(name) for name in row.conversation.extra}
        beside.update(survey.score_names.values())
        own = {name: value for name, value in output.items() if name not in beside}
        layout.add(row.conversation, own)
        yield output
