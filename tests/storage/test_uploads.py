"""Uploads that killed runs left unfinished in S3."""

from __future__ import annotations

from deita_tasks import storage

pytest_plugins = ["tests.support.s3_fixtures"]


def begin_upload(bucket: str, key: str) -> None:
    fs, _ = storage.filesystem(f"s3://{bucket}")
    fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)


def keys(folder: str) -> list[str]:
    return [upload.key for upload in storage.unfinished_uploads(folder)]


def test_uploads_are_listed_by_folder_and_aborted(s3):
    bucket = s3.bucket()
    for key in ("place/a", "place/b", "placebo/c"):
        begin_upload(bucket, key)
    assert keys(f"s3://{bucket}/place") == ["place/a", "place/b"]
    assert keys(f"s3://{bucket}") == ["place/a", "place/b", "placebo/c"]
    first, _ = storage.unfinished_uploads(f"s3://{bucket}/place")
    storage.abort_upload(f"s3://{bucket}/place", first)
    storage.abort_upload(f"s3://{bucket}/place", first)  # as another gc beside this one does
    assert keys(f"s3://{bucket}") == ["place/b", "placebo/c"]


def test_a_listing_of_many_uploads_is_paged(s3, monkeypatch):
    bucket = s3.bucket()
    for number in range(3):
        begin_upload(bucket, f"place/{number}")
    fs, _ = storage.filesystem(f"s3://{bucket}")
    call_s3 = fs.call_s3

    def one_a_page(method: str, **options: object):  # moto gives all in one page
        uploads = call_s3(method, **options)["Uploads"]
        page = int(options.get("KeyMarker", 0))
        return {
            "Uploads": uploads[page : page + 1],
            "IsTruncated": page + 1 < len(uploads),
            "NextKeyMarker": str(page + 1),
            "NextUploadIdMarker": "",
        }

    monkeypatch.setattr(fs, "call_s3", one_a_page)
    assert keys(f"s3://{bucket}/place") == ["place/0", "place/1", "place/2"]


def test_other_stores_have_none(tmp_path):
    assert storage.unfinished_uploads("memory://elsewhere") == []
    assert storage.unfinished_uploads(str(tmp_path)) == []
