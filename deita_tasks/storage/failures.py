"""What goes wrong with files and object stores, told as one StorageError in one line, with no
credential in it.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from deita_tasks.errors import MissingFile, StorageError

# Libraries that raise errors of their own, beside OSError, for a store that cannot be reached or
# does not let us in.
LIBRARIES = {
    "botocore",
    "aiobotocore",
    "aiohttp",
    "s3fs",
    "fsspec",
    "huggingface_hub",
    "requests",
    "httpx",
}
UNREACHABLE = re.compile(
    r"Connection|Connect|Timeout|HTTPClient|Payload|Disconnected|ResponseParser"
)
SECRET_NAMES = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|CREDENTIALS)", re.IGNORECASE)


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Raise what goes wrong with `uri` inside the block as a StorageError (MissingFile where it is
    not there).
    """
    try:
        yield
    except Exception as error:
        known = as_storage_error(uri, error)
        if known is None:
            raise
        raise known from error


def as_storage_error(uri: str, error: Exception) -> StorageError | None:
    """`error` as a StorageError about `uri`; None where it is not the store's doing."""
    if isinstance(error, StorageError) or not (
        isinstance(error, OSError) or type(error).__module__.split(".")[0] in LIBRARIES
    ):
        return None
    said = without_secrets(" ".join(str(error).split())) or type(error).__name__
    kind = type(error).__name__
    if kind == "FileExpired":  # s3fs: the object was replaced between two reads of it
        return MissingFile(f"{uri}: was replaced while it was read; run again")
    if isinstance(error, FileNotFoundError):
        return MissingFile(
            f"{uri}: no such bucket" if "specified bucket" in said else f"{uri}: no such file"
        )
    if isinstance(error, PermissionError):
        return StorageError(
            f"{uri}: not allowed ({said}); expected a place that this user or these "
            "credentials may use"
        )
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"{uri}: the disk is full; make room and run again: what was computed is kept"
        )
    if number == errno.EROFS:
        return StorageError(f"{uri}: the disk is read-only; expected a place that can be written")
    if "Credentials" in kind or kind in ("ProfileNotFound", "TokenRetrievalError"):
        return StorageError(
            f"{uri}: no usable credentials ({said}); set AWS_PROFILE, or AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY"
        )
    if UNREACHABLE.search(kind):
        return StorageError(
            f"{uri}: the store cannot be reached, also after several attempts ({said}); run "
            "again when it is back"
        )
    return StorageError(f"{uri}: {said}")


def without_secrets(text: str) -> str:
    """`text` with the values of this process's secret environment variables blotted out."""
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name) and len(value) >= 8:
            text = text.replace(value, "***")
    return text
