"""Failures of files and object stores: each a StorageError of one line, without credentials."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from deita_tasks.addresses import without_password
from deita_tasks.errors import HubUnreachable, MissingFile, StorageError

# Libraries that raise errors of their own, besides OSError, for a store that cannot be reached or
# refuses access.
LIBRARIES = {
    "botocore",
    "aiobotocore",
    "aiohttp",
    "s3fs",
    "fsspec",
    "huggingface_hub",
    "requests",
    "httpx",
    "httpx2",
}
UNREACHABLE = re.compile(
    r"Connection|Connect|Timeout|HTTPClient|Payload|Disconnected|ResponseParser|OfflineMode"
)
SECRET_NAMES = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|CREDENTIALS)", re.IGNORECASE)
FULL = (errno.ENOSPC, errno.EDQUOT)
MIN_SECRET_LENGTH = 8  # a shorter value is no secret, and would blot out ordinary words


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Raise what goes wrong with `uri` inside the block as a StorageError.

    MissingFile if nothing lies under `uri`. Other errors pass through.
    """
    try:
        yield
    except Exception as error:
        storage_error = as_storage_error(uri, error)
        if storage_error is None:
            raise
        raise storage_error from error


def as_storage_error(uri: str, error: Exception) -> StorageError | None:
    """Return `error` as a StorageError about `uri`; None if the store did not cause it."""
    if isinstance(error, StorageError) or not _is_of_store(error):
        return None
    kind = type(error).__name__
    detail = without_secrets(" ".join(str(error).split())) or kind
    if kind == "FileExpired":  # s3fs: the object was replaced between two reads of it
        return MissingFile(f"{uri}: was replaced while it was read; run again")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        missing = "bucket" if "specified bucket" in detail else "file"
        return MissingFile(f"{uri}: no such {missing}")
    if uri.startswith("hf://") and UNREACHABLE.search(kind):
        return HubUnreachable(
            f"{uri}: the Hugging Face hub cannot be reached ({detail}); download it beforehand, "
            "and name the files here"
        )
    return StorageError(f"{uri}: {_describe(error, kind, detail)}")


def _is_of_store(error: Exception) -> bool:
    """Return whether a file or object store raised `error`.

    Libraries are told by their module's name, so that none has to be imported.
    """
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in LIBRARIES


def _describe(error: Exception, kind: str, detail: str) -> str:
    """Return what happened and what to do about it."""
    if isinstance(error, PermissionError):
        return (
            f"not allowed ({detail}); expected a place that this user or these credentials may use"
        )
    number = getattr(error, "errno", None)
    is_full = number in FULL or any(os.strerror(code) in detail for code in FULL)
    if is_full:  # shutil puts the errors of several files into one without a number
        return "the disk is full; make room and run again: what was computed is kept"
    if number == errno.EROFS:
        return "the disk is read-only; expected a place that can be written"
    if "Credentials" in kind or kind in ("ProfileNotFound", "TokenRetrievalError"):
        return (
            f"no usable credentials ({detail}); set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    if UNREACHABLE.search(kind):
        return (
            f"the store cannot be reached, also after several attempts ({detail}); run again when "
            "it is back"
        )
    return detail


def without_secrets(text: str) -> str:
    """Return `text` with the values of secret environment variables replaced by ***."""
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name) and len(value) >= MIN_SECRET_LENGTH:
            text = text.replace(value, "***")
    return without_password(text)
