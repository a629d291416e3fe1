"""Rows of every format, and writers for every container."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from deita_tasks.conversations import Conversation, Quarantined, Turn
from deita_tasks.loading import read_conversations

Rows = list[dict[str, Any]]

HELLO = (Turn("user", "Say hello.\n"), Turn("assistant", " Hallo — 你好 😀"))
ADDING = (Turn("user", 'Add\n"1, 2"'), Turn("assistant", "3"))
LONGER = (
    Turn("system", "Be brief."),
    Turn("user", "a?"),
    Turn("assistant", "A."),
    Turn("user", "b?"),
    Turn("assistant", "B."),
)

# By format: rows as in a pool, and their turns, written by hand. Each row has the extra column
# `topic`.
SAMPLES: dict[str, tuple[Rows, list[tuple[Turn, ...]]]] = {
    "sharegpt": (
        [
            {
                "topic": "x",
                "conversations": [
                    {"from": "human", "value": "Say hello.\n"},
                    {"from": "gpt", "value": " Hallo — 你好 😀"},
                ],
            },
            {
                "topic": "y",
                "conversations": [
                    {"from": "human", "value": 'Add\n"1, 2"'},
                    {"from": "gpt", "value": "3"},
                ],
            },
            {
                "topic": "z",
                "conversations": [
                    {"from": "system", "value": "Be brief."},
                    {"from": "human", "value": "a?"},
                    {"from": "gpt", "value": "A."},
                    {"from": "human", "value": "b?"},
                    {"from": "gpt", "value": "B."},
                ],
            },
        ],
        [HELLO, ADDING, LONGER],
    ),
    "messages": (
        [
            {
                "topic": "x",
                "messages": [
                    {"role": "user", "content": "Say hello.\n"},
                    {"role": "assistant", "content": " Hallo — 你好 😀"},
                ],
            },
            {
                "topic": "y",
                "messages": [
                    {"role": "user", "content": 'Add\n"1, 2"'},
                    {"role": "assistant", "content": "3"},
                ],
            },
            {
                "topic": "z",
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "a?"},
                    {"role": "assistant", "content": "A."},
                    {"role": "user", "content": "b?"},
                    {"role": "assistant", "content": "B."},
                ],
            },
        ],
        [HELLO, ADDING, LONGER],
    ),
    "alpaca": (
        [
            {
                "topic": "x",
                "instruction": "Say hello.\n",
                "input": "",
                "output": " Hallo — 你好 😀",
                "history": [],
                "system": "",
            },
            {
                "topic": "y",
                "instruction": "Add",
                "input": '"1, 2"',
                "output": "3",
                "history": [],
                "system": "",
            },
            {
                "topic": "z",
                "instruction": "b?",
                "input": "",
                "output": "B.",
                "history": [["a?", "A."]],
                "system": "Be brief.",
            },
        ],
        [HELLO, ADDING, LONGER],
    ),
    "prompt_response": (
        [
            {"topic": "x", "prompt": "Say hello.\n", "response": " Hallo — 你好 😀"},
            {"topic": "y", "prompt": 'Add\n"1, 2"', "response": "3"},
        ],
        [HELLO, ADDING],
    ),
}


def json_lines(rows: Rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def json_array(rows: Rows) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=2).encode()


def json_array_in_one_line(rows: Rows) -> bytes:
    return json.dumps(rows).encode()


def csv_text(rows: Rows) -> bytes:
    """Return CSV; lists become JSON text."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                name: value if isinstance(value, str) else json.dumps(value)
                for name, value in row.items()
            }
        )
    return out.getvalue().encode()


def parquet(rows: Rows) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def parquet_of_texts(rows: Rows) -> bytes:
    """Return Parquet; lists become JSON text."""
    return parquet(
        [
            {
                name: value if isinstance(value, str) else json.dumps(value)
                for name, value in row.items()
            }
            for row in rows
        ]
    )


def arrow_stream(rows: Rows) -> bytes:
    return _write_arrow(rows, pa.ipc.new_stream)


def arrow_file(rows: Rows) -> bytes:
    return _write_arrow(rows, pa.ipc.new_file)


def _write_arrow(rows: Rows, open_writer: Callable[..., Any]) -> bytes:
    table = pa.Table.from_pylist(rows)
    out = io.BytesIO()
    with open_writer(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return out.getvalue()


def list_in_object(rows: Rows) -> bytes:
    return json.dumps({"version": "1", "info": {"a": [1]}, "data": rows, "n": 1}, indent=2).encode()


PLAIN: dict[str, Callable[[Rows], bytes]] = {
    "json_lines": json_lines,
    "json_array": json_array,
    "json_array_in_one_line": json_array_in_one_line,
    "csv": csv_text,
    "json_list_in_object": list_in_object,
}


PARQUET: dict[str, Callable[[Rows], bytes]] = {
    "parquet": parquet,
    "parquet_of_texts": parquet_of_texts,
    "arrow_stream": arrow_stream,
    "arrow_file": arrow_file,
}
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda content: content,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


def read(path: Any, content: bytes, format: str = "auto") -> list[Conversation | Quarantined]:
    """Write `content` to `path` and read its rows."""
    path.write_bytes(content)
    return list(read_conversations(str(path), format))


def fates(rows: list[Conversation | Quarantined]) -> dict[int, str]:
    """Return "ok" or the reason for quarantine, by row number."""
    assert len({row.source.row for row in rows}) == len(rows)
    return {row.source.row: row.reason if isinstance(row, Quarantined) else "ok" for row in rows}


def good(rows: list[Conversation | Quarantined]) -> list[Conversation]:
    """Return `rows`, all of which must be conversations."""
    assert all(isinstance(row, Conversation) for row in rows), [
        row for row in rows if isinstance(row, Quarantined)
    ]
    return [row for row in rows if isinstance(row, Conversation)]
