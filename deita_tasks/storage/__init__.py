"""Files in a local folder, in S3 or in memory, through fsspec; whole or not at all.

A URI is a plain path, `file://`, `s3://`, `memory://`, `hf://` or whatever else fsspec knows.
Everything that the project reads or writes goes through here, so that what holds for one kind of
store holds for all: a file appears whole or not at all, and whatever goes wrong is a StorageError
in one line (`faults.py`). Where files lie and what is there is in `places.py`.
"""

from deita_tasks.storage.files import (
    content_digest,
    describe,
    digest_of,
    is_same,
    open_read,
    parquet_file,
    parquet_writer,
    read_json,
    read_table,
    sha256_of,
    write_atomic,
    write_bytes,
    write_json,
    write_table,
)
from deita_tasks.storage.filesystems import (
    Found,
    Upload,
    absolute,
    check_place,
    exists,
    expand,
    filesystem,
    find,
    give_up,
    is_empty,
    is_local,
    join,
    list_files,
    path_in,
    remove,
    size_of,
    unfinished_uploads,
)

__all__ = [
    "Found",
    "Upload",
    "absolute",
    "check_place",
    "content_digest",
    "describe",
    "digest_of",
    "exists",
    "expand",
    "filesystem",
    "find",
    "give_up",
    "is_empty",
    "is_local",
    "is_same",
    "join",
    "list_files",
    "open_read",
    "parquet_file",
    "parquet_writer",
    "path_in",
    "read_json",
    "read_table",
    "remove",
    "sha256_of",
    "size_of",
    "unfinished_uploads",
    "write_atomic",
    "write_bytes",
    "write_json",
    "write_table",
]
