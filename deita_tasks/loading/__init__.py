"""Loading: read pools of conversations, whatever their format. One module per format.

    for row in read_conversations("pool.jsonl.xz"):  # a Conversation, or Quarantined with a reason
        ...

The same in steps, one file at a time:

    for uri in pool_files("s3://bucket/pools"):
        pool_file = open_pool(uri)  # knows its compression, container and format
        rows = list(pool_file)
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import chain

from deita_tasks.catalogue import INPUT_FORMATS as FORMATS
from deita_tasks.components import component_class
from deita_tasks.errors import EmptyFile
from deita_tasks.loading.base import RowFormat
from deita_tasks.loading.pool import PoolFile, detect_file, pool_files
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


def load_layouts(format: str = "auto") -> list[RowFormat]:
    """Return the layouts of `format`, or of all formats. Raises UsageError for an unknown name."""
    names = list(FORMATS) if format == "auto" else [format]
    classes: list[type[RowFormat]] = [component_class(FORMATS, "format", name) for name in names]
    return [layout for row_format in classes for layout in row_format.layouts()]


def open_pool(uri: str, format: str = "auto") -> PoolFile:
    """Detect what the file `uri` is. Its rows can be iterated over any number of times.

    Raises UsageError for an unknown format name, and InputError for a file that is absent, empty or
    of no known format.
    """
    return detect_file(uri, load_layouts(format), require_match=format == "auto")


def open_unless_empty(uri: str, format: str = "auto") -> PoolFile | None:
    """Like `open_pool`, but return None and log a warning if the file has no rows.

    A pool's other files can be read without it.
    """
    try:
        return open_pool(uri, format)
    except EmptyFile as error:
        log.warning("skipped: %s", error)
        return None


def read_conversations(
    uri: str | Sequence[str], format: str = "auto"
) -> Iterator[Conversation | Quarantined]:
    """Yield every row of the pool in order: a Conversation, or Quarantined if it cannot be one.

    Memory use does not grow with the size of the files.

    uri: a file, a folder, a glob, any fsspec URI (s3://, hf://, memory://), or a list of these.
    format: a name in FORMATS, or "auto" to detect the format of each file from its first rows.

    Raises immediately UsageError for an unknown format name, InputError for a file that is absent
    or of no known format, and EmptyFile if no file has rows. Raises BrokenFile (an InputError) when
    reading reaches damage in a file, after all rows before it.
    """
    load_layouts(format)  # so that a wrong format name is reported before a wrong file
    files = pool_files(uri)
    opened = [open_unless_empty(file, format) for file in files]
    pool = [pool_file for pool_file in opened if pool_file is not None]
    if not pool:
        raise EmptyFile(f"{', '.join(files)}: no rows; expected conversations")
    return chain.from_iterable(pool)
