"""Loading: read pools of conversations, whatever their format. One module per format.

    for row in read_conversations("pool.jsonl.xz"):  # a Conversation, or Quarantined with a reason
        ...

The same in steps, one file at a time:

    for uri in pool_files("s3://bucket/pools"):
        pool_file = open_pool(uri)  # knows its compression, container and format
        rows = list(pool_file)
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, tee
from typing import Any, TypeGuard

from deita_tasks.catalogue import INPUT_FORMATS as FORMATS
from deita_tasks.components import component_class
from deita_tasks.conversations import Conversation, Quarantined
from deita_tasks.errors import EmptyFile
from deita_tasks.loading.base import RowFormat
from deita_tasks.loading.folder import PoolFiles, find_pool, log_passed_over
from deita_tasks.loading.in_memory import encode_rows, save_pool
from deita_tasks.loading.json_lines import rows as read_lines
from deita_tasks.loading.pool import PoolFile, choose_layout, conversations, detect_file

__all__ = [
    "FORMATS",
    "PoolFile",
    "PoolFiles",
    "encode_rows",
    "find_pool",
    "log_passed_over",
    "open_pool",
    "open_unless_empty",
    "pool_files",
    "read_conversations",
    "save_pool",
]

log = logging.getLogger(__name__)

ROWS = "rows"  # in place of the URI, for rows from Python


def load_layouts(format: str = "auto") -> list[RowFormat]:
    """Return the layouts of `format`, or of all formats. Raises UsageError for an unknown name."""
    names = list(FORMATS) if format == "auto" else [format]
    classes: list[type[RowFormat]] = [component_class(FORMATS, "format", name) for name in names]
    return [layout for row_format in classes for layout in row_format.layouts()]


def pool_files(uri: str | Sequence[str]) -> list[str]:
    """Return the files that `uri` names, in order (see `find_pool`)."""
    return find_pool(uri, load_layouts()).files


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
    pool: str | Sequence[str] | Iterable[Any], format: str = "auto"
) -> Iterator[Conversation | Quarantined]:
    """Yield every row of the pool in order: a Conversation, or Quarantined if it cannot be one.

    Memory use does not grow with the size of the files.

    pool: a file, a folder, a glob, any fsspec URI (s3://, hf://, memory://), the id of a data set
    of the hub (see `hub`), or a list of these; or rows: a pandas DataFrame, a datasets.Dataset or
    an iterable of dicts.
    format: a name in FORMATS, or "auto" to detect the format of each file from its first rows.

    Raises immediately UsageError for an unknown format name, InputError for a file that is absent
    or of no known format, and EmptyFile if no file has rows. Raises BrokenFile (an InputError) when
    reading reaches damage in a file, after all rows before it.
    """
    layouts = load_layouts(format)  # so that a wrong format name is reported before a wrong file
    if not _are_uris(pool):
        ahead, rows = tee(read_lines(encode_rows(pool)))
        layout = choose_layout(ahead, ROWS, layouts, require_match=format == "auto")
        del ahead
        return conversations(rows, ROWS, layout)
    found = find_pool(pool, load_layouts())
    log_passed_over(found.passed_over)
    opened = [open_unless_empty(file, format) for file in found.files]
    files = [pool_file for pool_file in opened if pool_file is not None]
    if not files:
        raise EmptyFile(f"{', '.join(found.files)}: no rows; expected conversations")
    return chain.from_iterable(files)


def _are_uris(pool: Any) -> TypeGuard[str | Sequence[str]]:
    """Return whether a pool is named by URIs; otherwise it is rows.

    A text alone is one URI. An empty list counts as URIs, so that `find_pool` refuses it.
    """
    return isinstance(pool, str) or (
        isinstance(pool, list | tuple) and all(isinstance(uri, str) for uri in pool)
    )
