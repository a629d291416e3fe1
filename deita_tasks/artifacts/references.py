"""The reference artifact: texts that the rows of a pool are compared with, as vectors.

<store>/references/<digest>/
    vectors.parquet     a row for every text (VECTORS)
    reference.json      counts; written last, so no reference is half there

The texts are the rows of target or evaluation files, or the tags of a pool. The digest is that of
their source and of the embedder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
from pydantic import Field, NonNegativeInt

from deita_tasks import storage
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_strata import ABSENT, column_values
from deita_tasks.errors import StorageError, UsageError
from deita_tasks.records import ModelOutput
from deita_tasks.selecting.arrays import Floats
from deita_tasks.selecting.mig import tags_of
from deita_tasks.selecting.reference import Reference
from deita_tasks.storage import FileInfo
from deita_tasks.strict_json import JsonRecord

REFERENCE_FILE = "reference.json"
VECTORS_FILE = "vectors.parquet"
VECTORS = pa.schema(
    {
        "name": pa.string(),  # distinct: the id of a row, or a tag
        "source_uri": pa.string(),  # "" for a tag
        "source_row": pa.int64(),  # 0 for a tag
        "text": pa.string(),
        "vector": pa.list_(pa.float32()),
    }
)


class ReferenceText(NamedTuple):
    """A text to compare with. source_uri: "" for a tag, which stands in no file."""

    name: str
    text: str
    source_uri: str = ""
    source_row: int = 0


class ReferenceSummary(JsonRecord):
    """reference.json. notes: what to know, in words, such as rows that could not be read."""

    uri: str
    texts: NonNegativeInt
    files: dict[str, FileInfo]
    notes: list[str] = Field(default_factory=list)


def write_reference(
    uri: str, texts: Sequence[ReferenceText], vectors: ModelOutput, notes: Sequence[str] = ()
) -> ReferenceSummary:
    """Write the artifact; text i has the vector i. A text without a vector stays out, and is noted.

    Raises UsageError if no text has a vector.
    """
    usable = [row for row in range(len(texts)) if row not in vectors.problems]
    notes = [*notes]
    for row, problem in vectors.problems.items():
        notes.append(f"{texts[row].text[:60]!r} has no vector: {problem}")
    if not usable:
        raise UsageError(f"nothing to compare with: {'; '.join(notes[:3])}")
    columns = list(zip(*(texts[row] for row in usable), strict=True))
    names, contents, uris, rows = columns
    table = pa.table(
        {
            "name": names,
            "source_uri": uris,
            "source_row": rows,
            "text": contents,
            "vector": list(vectors.values[usable]),
        },
        schema=VECTORS,
    )
    place = storage.join(uri, VECTORS_FILE)
    storage.write_table(place, table)
    files = {VECTORS_FILE: storage.describe(place)}
    summary = ReferenceSummary(uri=uri, texts=len(usable), files=files, notes=notes)
    storage.write_record(storage.join(uri, REFERENCE_FILE), summary)
    return summary


def read_summary(uri: str) -> ReferenceSummary:
    """Return the reference.json under `uri`. Raises MissingFile or DamagedArtifact."""
    summary = storage.read_record(storage.join(uri, REFERENCE_FILE), ReferenceSummary)
    return summary.model_copy(update={"uri": uri})


def is_reference(uri: str) -> bool:
    """Return whether a complete, undamaged reference lies under `uri`.

    False too where the store cannot be read: then the caller writes it, and sees why not.
    """
    try:
        return storage.are_same(uri, read_summary(uri).files)
    except StorageError:
        return False


def read_table(uri: str) -> pa.Table:
    """Return the texts with their vectors (VECTORS). Raises MissingFile or DamagedArtifact."""
    summary = read_summary(uri)
    place = storage.checked_file(uri, VECTORS_FILE, summary.files[VECTORS_FILE])
    return storage.read_table(place, schema=VECTORS)


def vectors_of(table: pa.Table) -> Floats:
    """Return the vectors of VECTORS: float32 (m, d), row i that of row i of the table."""
    column = table["vector"].combine_chunks()
    vectors: Floats = column.flatten().to_numpy().reshape(len(column), -1)
    return vectors


def read_reference(uri: str, pool: Pool, tags: str | None = None) -> Reference:
    """Return what a strategy compares the rows of `pool` with.

    tags: the column with the tags of each row; None for target rows, whose groups are their files.
    """
    table = read_table(uri)
    names = table["name"].to_pylist()
    vectors = vectors_of(table)
    if tags is None:
        return Reference(names, vectors, groups=table["source_uri"].to_pylist())
    return Reference(names, vectors, read_tags(pool, tags))


def read_tags(pool: Pool, column: str) -> dict[str, list[str]]:
    """Return the tags of each distinct row of `pool`, by its id; a row may have none.

    Raises UsageError for a column that no row has, or that holds something else than texts.
    """
    ids, _ = pool.distinct
    values = column_values(pool, ids, column)
    if all(value is ABSENT for value in values):
        raise UsageError(f"tags = {column!r}: no row of the pool has such a column")
    of_rows = {}
    for row_id, value in zip(ids.to_pylist(), values, strict=True):
        of_rows[row_id] = None if value is ABSENT else value
    return tags_of(of_rows)
