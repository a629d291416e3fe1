"""Tables of several Parquet pages."""

from __future__ import annotations

import hashlib

import pyarrow as pa


def table_of(rows: int) -> pa.Table:
    """A table that hardly compresses, so that damage in the middle is damage to data."""
    texts = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(rows)]
    return pa.table({"id": [f"{number:08}" for number in range(rows)], "text": texts})
