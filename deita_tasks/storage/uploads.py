"""Uploads to S3 that killed runs left unfinished: their pieces cost money and no listing shows."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from deita_tasks.storage.failures import storage_errors
from deita_tasks.storage.filesystems import filesystem, is_s3


class Upload(NamedTuple):
    """An upload that was begun, and neither finished nor aborted."""

    key: str
    id: str
    begun: datetime


def unfinished_uploads(folder: str) -> list[Upload]:
    """Return the unfinished uploads below `folder`; [] outside S3.

    Those of runs under way look the same. Raises StorageError where they cannot be listed.
    """
    if not is_s3(folder):
        return []
    fs, path = filesystem(folder)
    bucket, _, prefix = path.partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    page_start: dict[str, str] = {}
    uploads: list[Upload] = []
    with storage_errors(folder):
        while True:
            page = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **page_start)
            for upload in page.get("Uploads", []):
                begun = upload["Initiated"].astimezone(UTC)
                uploads.append(Upload(upload["Key"], upload["UploadId"], begun))
            if not page.get("IsTruncated"):
                return uploads
            page_start = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }


def abort_upload(folder: str, upload: Upload) -> None:
    """Abort an unfinished upload below `folder`, which removes its pieces.

    Does nothing if it has ended meanwhile. Raises StorageError without the permission.
    """
    fs, path = filesystem(folder)
    bucket = path.partition("/")[0]
    with storage_errors(folder), suppress(FileNotFoundError):
        fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload.key, UploadId=upload.id)
