"""Open a file of a pool, and read its rows by compression and container."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from deita_tasks import storage
from deita_tasks.errors import EmptyFile, InputError, StorageError
from deita_tasks.loading.base import BrokenFile, Row
from deita_tasks.loading.compression import Compression, blocks
from deita_tasks.loading.containers import (
    BINARY_READERS,
    HEAD_BYTES,
    READERS,
    Container,
    remove_bom,
)


def read_rows(uri: str, compression: Compression, container: Container) -> Iterator[Row]:
    """Yield the rows of the file `uri`, whatever their format.

    Raises InputError for a file that cannot be opened, and BrokenFile, after all rows before it,
    where damage begins.
    """
    with open_file(uri) as handle:
        if container in BINARY_READERS:
            yield from BINARY_READERS[container](handle)
        else:
            yield from READERS[container](remove_bom(blocks(handle, compression)))


@contextmanager
def open_file(uri: str) -> Iterator[IO[bytes]]:
    """Open the file `uri` for reading. InputErrors raised inside name the URI.

    Raises InputError where there is no such file, or its store cannot be read.
    """
    try:
        handle = storage.open_read(uri)
    except StorageError as error:
        raise InputError(str(error)) from error
    try:
        with handle:
            yield handle
    except InputError as error:
        raise type(error)(f"{uri}: {error}") from error


def read_head(handle: IO[bytes], compression: Compression) -> bytes:
    """Return the first HEAD_BYTES of the decompressed content, without leading white space.

    Raises EmptyFile if there is nothing else.
    """
    head = b""
    try:
        for block in blocks(handle, compression):
            head = (head + block).lstrip()
            if len(head) >= HEAD_BYTES:
                break
    except BrokenFile:
        if not head:
            raise
    if not head:
        raise EmptyFile("an empty file; expected conversations")
    return head[:HEAD_BYTES]
