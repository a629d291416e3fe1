"""Loading: pools of conversations in, whatever their format; one file a format.

for row in read_conversations("pool.jsonl.xz"):
    ...                                       # Conversation, or Quarantined with a reason
[open_pool(uri) for uri in pool_files("s3://bucket/pools")]   # the same in steps: which files, what each of them is, its rows
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import chain

from deita_tasks.components import Table, component_class
from deita_tasks.errors import EmptyFile
from deita_tasks.loading.base import RowFormat
from deita_tasks.loading.pool import PoolFile, inspect, pool_files
from deita_tasks.records import Conversation, Quarantined

__all__ = [
    "FORMATS",
    "PoolFile",
    "open_pool",
    "open_unless_empty",
    "pool_files",
    "read_conversations",
]

log = logging.getLogger(__name__)

FORMATS: Table = {
    "sharegpt": "deita_tasks.loading.sharegpt:ShareGPT",
    "messages": "deita_tasks.loading.messages:Messages",
    "alpaca": "deita_tasks.loading.alpaca:Alpaca",
    "prompt_response": "deita_tasks.loading.prompt_response:PromptResponse",
}


def layouts(format: str = "auto") -> list[RowFormat]:
    """Every layout of `format`, or of all formats. Raises UsageError for an unknown name."""
    names = list(FORMATS) if format == "auto" else [format]
    return [
        layout for name in names for layout in component_class(FORMATS, "format", name).layouts()
    ]


def open_pool(uri: str, format: str = "auto") -> PoolFile:
    """The file `uri`, known by its first rows: what it is, and iterable for its rows, any number of
    times.

    Raises UsageError for an unknown format, and InputError for a file that is absent, empty, or of
    no known format.
    """
    return inspect(uri, layouts(format), detect=format == "auto")


def open_unless_empty(uri: str, format: str = "auto") -> PoolFile | None:
    """As `open_pool`; None, and a warning, for a file that holds nothing, which is no reason to do
    without the others of a pool.
    """
    try:
        return open_pool(uri, format)
    except EmptyFile as error:
        log.warning("passed over: %s", error)
        return None


def read_conversations(
    uri: str | Sequence[str], format: str = "auto"
) -> Iterator[Conversation | Quarantined]:
    """Every row of the pool, in order: a Conversation, or Quarantined where it cannot be one.
    Memory does not grow with the files.

    uri: a file, a folder, a glob, anything fsspec knows (s3://, hf://, memory://), or a list of
    them. format: a name in FORMATS, or "auto" to detect it in each file from its first rows. Raises
    UsageError and InputError at once for an unknown format, and for a file that is absent or of no
    known format, and EmptyFile where all are empty; BrokenFile (an InputError) while reading, after
    all rows before that place, where a file breaks off.
    """
    layouts(format)  # a wrong name is told first
    files = pool_files(uri)
    opened = [
        file for file in (open_unless_empty(one, format) for one in files) if file is not None
    ]
    if not opened:
        raise EmptyFile(f"{', '.join(files)}: no rows; expected conversations")
    return chain.from_iterable(opened)
