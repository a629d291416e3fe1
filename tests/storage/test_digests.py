"""Digests and sizes: over a local folder, memory:// and S3."""

from __future__ import annotations

import hashlib

import pytest

from deita_tasks import storage
from deita_tasks.storage import FileInfo

pytest_plugins = ["tests.support.s3_fixtures"]


def test_a_file_is_described_by_size_and_sha256(place):
    storage.write_bytes(f"{place}/a", b"one")
    info = storage.describe(f"{place}/a")
    assert info == FileInfo(bytes=3, sha256=hashlib.sha256(b"one").hexdigest())
    assert info.to_dict() == {"sha256": info.sha256, "bytes": 3}


def test_a_file_is_the_same_until_it_changes(place):
    uri = f"{place}/a"
    storage.write_bytes(uri, b"one")
    info = storage.describe(uri)
    assert storage.is_same(uri, info)
    storage.write_bytes(uri, b"three")
    assert not storage.is_same(uri, info)
    # of the same size: an object store would have to be downloaded to notice
    storage.write_bytes(uri, b"two")
    assert storage.is_same(uri, info) == (not storage.is_local(uri))
    storage.remove(uri)
    assert not storage.is_same(uri, info)


def test_a_large_file_is_hashed_block_by_block(tmp_path):
    content = b"0123456789abcdef" * (1 << 17)  # 2 MiB
    storage.write_bytes(str(tmp_path / "a"), content + b"end")
    expected = hashlib.sha256(content + b"end").hexdigest()
    assert storage.sha256_of(str(tmp_path / "a")) == expected


def test_content_digest_follows_the_content(place):
    uri = f"{place}/a"
    storage.write_bytes(uri, b"one")
    storage.write_bytes(f"{place}/copy", b"one")
    before = storage.content_digest(uri)
    assert storage.content_digest(uri) == before
    storage.write_bytes(uri, b"two")
    assert storage.content_digest(uri) != before
    if not place.startswith("memory"):  # which knows only the time
        assert storage.content_digest(f"{place}/copy") == before


def test_a_content_digest_says_what_it_is_made_of(tmp_path, s3):
    content = b"one"
    storage.write_bytes(str(tmp_path / "a"), content)
    expected = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert storage.content_digest(str(tmp_path / "a")) == expected
    uri = f"s3://{s3.bucket()}/a"
    storage.write_bytes(uri, content)
    assert storage.content_digest(uri).startswith("token:")


@pytest.mark.parametrize(
    ("value", "digest"),
    [
        ({"b": [1, None], "a": "ü"}, '{"a":"ü","b":[1,null]}'),
        ([], "[]"),
        ({"x": 0.9, "y": True}, '{"x":0.9,"y":true}'),
    ],
)
def test_a_value_is_named_by_its_json_in_any_order_of_keys(value, digest):
    """Part sets, pools and selections lie under these names."""
    assert storage.digest_of(value) == hashlib.sha256(digest.encode()).hexdigest()[:32]
