"""Fixtures around `s3.py`.

A test module gets them by `pytest_plugins = ["tests.support.s3_fixtures"]`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from tests.support.s3 import S3, Proxy, proxy_before


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3(f"http://{host}:{port}")
    server.stop()


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server, with this process set up to use it."""
    s3_server.use(monkeypatch)
    return s3_server


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[str]:
    """An unused URI, on each kind of store."""
    if request.param == "local":
        yield f"{tmp_path}/place"
    elif request.param == "memory":
        root = f"memory://{uuid.uuid4().hex}"
        yield f"{root}/place"
        fsspec.filesystem("memory").store.clear()
    else:
        server: S3 = request.getfixturevalue("s3")
        yield f"s3://{server.bucket()}/place"


@pytest.fixture
def flaky(s3_server: S3) -> Iterator[Proxy]:
    """The server behind a proxy that can make requests fail."""
    with proxy_before(s3_server) as proxy:
        yield proxy
