"""A file with keys and values: Parquet, CSV or JSON Lines, by the end of its name."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, InputError, MissingFile
from deita_tasks.strict_json import JSON

Value: TypeAlias = "JSON | NDArray[Any]"


class ValueFile(ABC):
    """Base class of files with values. `names`: the columns."""

    names: Sequence[str]

    @abstractmethod
    def columns(self, names: Sequence[str]) -> list[list[Any]]:
        """Return all values of some columns, a list for each, in the order of `names`."""

    @abstractmethod
    def values(self, column: str, rows: Iterable[int]) -> dict[int, Value]:
        """Return the values of a column by row; rows count from 0. None for null."""


class ParquetFile(ValueFile):
    """A Parquet file; of its values one row group at a time is in memory."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        with storage.parquet_file(uri) as parquet:
            self.names = parquet.schema_arrow.names
            self._group_starts = _group_starts(parquet)
        self._group: tuple[str, int, pa.ChunkedArray] | None = None

    def columns(self, names: Sequence[str]) -> list[list[Any]]:
        """Return all values of some columns, as Python objects; meant for keys, not for vectors."""
        table = storage.read_table(self.uri, names)
        return [table[name].to_pylist() for name in names]

    def values(self, column: str, rows: Iterable[int]) -> dict[int, Value]:
        """Return the values of a column in some rows; reads each row group once."""
        return {row: self._value(column, row) for row in sorted(rows)}

    def _value(self, column: str, row: int) -> Value:
        """Return one value, of a list its numbers. Keeps the row group for the rows after it."""
        group = bisect_right(self._group_starts, row) - 1
        if self._group is None or self._group[:2] != (column, group):
            self._group = None  # free the last group before reading the next
            with storage.parquet_file(self.uri) as parquet:
                table = parquet.read_row_group(group, columns=[column])
            self._group = (column, group, table[column])
        _, _, cells = self._group
        scalar = cells[row - self._group_starts[group]]
        if not scalar.is_valid:
            return None
        value: Value
        if isinstance(scalar, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar):
            value = scalar.values.to_numpy(zero_copy_only=False)
        else:
            value = scalar.as_py()
        return value


def _group_starts(parquet: pq.ParquetFile) -> list[int]:
    """Return the first row of each of g row groups, and the number of rows: g + 1 numbers."""
    groups = range(parquet.num_row_groups)
    sizes = [parquet.metadata.row_group(group).num_rows for group in groups]
    return list(accumulate(sizes, initial=0))


class TextFile(ValueFile):
    """A CSV or JSON Lines file, whole in memory. The values of a CSV file are texts.

    Raises InputError for a file that is not UTF-8, or that `read_rows` refuses with ValueError.
    """

    def __init__(self, uri: str, read_rows: Callable[[str], list[dict[str, Any]]]) -> None:
        with storage.open_read(uri) as handle:
            content = handle.read()
        try:
            text = content.decode("utf-8-sig")
            self._rows = read_rows(text)
        except ValueError as error:  # UnicodeDecodeError is one
            raise InputError(f"{uri}: {error}") from error
        names: dict[str, None] = {}
        for row in self._rows:
            names.update(dict.fromkeys(row))
        self.names = list(names)

    def columns(self, names: Sequence[str]) -> list[list[Any]]:
        """Return all values of some columns; None in a row without the column."""
        columns = []
        for name in names:
            values = [row.get(name) for row in self._rows]
            columns.append(values)
        return columns

    def values(self, column: str, rows: Iterable[int]) -> dict[int, Value]:
        """Return the values of a column in some rows; None in a row without it."""
        return {row: self._rows[row].get(column) for row in rows}


def _read_json_lines(text: str) -> list[dict[str, Any]]:
    """Return the objects, one a line. Raises ValueError for a line that holds something else."""
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is {line[:40]!r}; expected a JSON object")
        rows.append(row)
    return rows


def _read_csv(text: str) -> list[dict[str, Any]]:
    """Return the records; an empty cell is null. Raises ValueError for what is not CSV.

    So it does for names that are not unique, and for records that do not fit the header.
    """
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            names = ", ".join(header)
            raise ValueError(f"the header {names} has a name twice")
        rows = []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"the record that ends in line {reader.line_num} has {len(cells)} cells; "
                    f"expected {len(header)}, as in the header"
                )
            values = [cell or None for cell in cells]
            rows.append(dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not CSV ({error})") from error
    return rows


TEXT_FORMATS = {".csv": _read_csv, ".jsonl": _read_json_lines, ".ndjson": _read_json_lines}


def open_value_file(uri: str) -> ValueFile:
    """Open a file of values. Raises InputError for one that cannot be read.

    The end of its name tells the format; a name with none of TEXT_FORMATS is read as Parquet.
    """
    name = uri.lower()
    for suffix, read_rows in TEXT_FORMATS.items():
        if name.endswith(suffix):
            try:
                return TextFile(uri, read_rows)
            except MissingFile as error:
                raise InputError(str(error)) from error
    try:
        return ParquetFile(uri)
    except (MissingFile, DamagedArtifact) as error:
        raise InputError(
            f"{error}; expected a Parquet file of scores or vectors, or a .csv or .jsonl"
        ) from error
