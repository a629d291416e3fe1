"""Files on a local disk, in S3 or in memory: one interface, and the same guarantees everywhere.

files.py         read and write, whole or not at all
filesystems.py   where files lie and what is there
expansion.py     the files that a URI names
digests.py       size and sha256 of files, to notice a change
uploads.py       uploads that killed runs left in S3
failures.py      what can go wrong, in one line
"""

from deita_tasks.storage.digests import (
    FileInfo,
    are_same,
    check_file,
    checked_file,
    content_digest,
    describe,
    is_same,
    local_sha256,
    sha256_of,
)
from deita_tasks.storage.expansion import Expansion, expand
from deita_tasks.storage.files import (
    as_record,
    create,
    draft_path,
    draft_target,
    open_read,
    parquet_file,
    parquet_writer,
    read_json,
    read_record,
    read_table,
    scratch_folder,
    write_atomic,
    write_bytes,
    write_json,
    write_parquet,
    write_record,
    write_table,
)
from deita_tasks.storage.filesystems import (
    FileEntry,
    absolute,
    check_writable,
    exists,
    filesystem,
    find,
    is_empty,
    is_local,
    join,
    list_files,
    path_in,
    remove,
    size_of,
)
from deita_tasks.storage.uploads import Upload, abort_upload, unfinished_uploads
from deita_tasks.strict_json import digest_of

__all__ = [
    "Expansion",
    "FileEntry",
    "FileInfo",
    "Upload",
    "abort_upload",
    "absolute",
    "are_same",
    "as_record",
    "check_file",
    "check_writable",
    "checked_file",
    "content_digest",
    "create",
    "describe",
    "digest_of",
    "draft_path",
    "draft_target",
    "exists",
    "expand",
    "filesystem",
    "find",
    "is_empty",
    "is_local",
    "is_same",
    "join",
    "list_files",
    "local_sha256",
    "open_read",
    "parquet_file",
    "parquet_writer",
    "path_in",
    "read_json",
    "read_record",
    "read_table",
    "remove",
    "scratch_folder",
    "sha256_of",
    "size_of",
    "unfinished_uploads",
    "write_atomic",
    "write_bytes",
    "write_json",
    "write_parquet",
    "write_record",
    "write_table",
]
