"""An S3 server of our own on the loopback, and a proxy in front of it that makes trouble.

The fixtures that start them are in `s3_fixtures.py`.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from deita_tasks import storage

ACCESS, SECRET = "AKIAPLANTEDBYTHETESTS", "planted/secret/that/must/be/written/nowhere"


@dataclass
class S3:
    """The server's address; `environment` is what a process needs to use it."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
        """Make this process use the server; `more` are further environment variables."""
        for name, value in {**self.environment, **more}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_PROFILE", raising=False)

    def bucket(self) -> str:
        """A new, empty bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        storage.filesystem("s3://")[0].mkdir(name)
        return name


@dataclass
class Trouble:
    """What the proxy does to the requests: a share of them fails, in turn by 500, 503 and a reset;
    or every one is refused.
    """

    share: float = 0.0
    away: bool = False
    away_after: int | None = None  # so many PUTs of scores, and the server is gone for good
    seed: int = 7
    done: dict[str, int] = field(
        default_factory=lambda: {"passed": 0, "500": 0, "503": 0, "reset": 0}
    )


@dataclass
class Proxy(S3):
    """A server in front of the server, with `trouble` to be set at any time."""

    trouble: Trouble = field(default_factory=Trouble)


@contextmanager
def proxy_before(server: S3) -> Iterator[Proxy]:
    """A proxy before `server`."""
    trouble = Trouble()
    dice, lock = random.Random(trouble.seed), threading.Lock()
    behind = urlsplit(server.endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _serve(self) -> None:
            body = self._body()
            with lock:
                if (
                    trouble.away_after is not None
                    and self.command == "PUT"
                    and "/scores/" in self.path
                ):
                    trouble.away_after -= 1
                    trouble.away = trouble.away or trouble.away_after < 0
                fails = trouble.away or dice.random() < trouble.share
                kind = (
                    ("500", "503", "reset")[
                        sum(trouble.done[name] for name in ("500", "503", "reset")) % 3
                    ]
                    if fails
                    else "passed"
                )
                kind = "reset" if trouble.away else kind
                trouble.done[kind] += 1
            if kind == "reset":
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.connection.close()
                self.close_connection = True
            elif kind == "passed":
                self._pass_on(body)
            else:
                self._answer(
                    int(kind),
                    [("Content-Type", "application/xml")],
                    b"<Error><Code>InternalError</Code></Error>",
                )

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

        def _body(self) -> bytes:
            if self.headers.get("Expect", "").lower() == "100-continue":
                pass  # the base class has answered it
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _pass_on(self, body: bytes) -> None:
            connection = http.client.HTTPConnection(behind.hostname or "", behind.port, timeout=30)
            connection.request(
                self.command, self.path, body, {**dict(self.headers.items()), "Host": behind.netloc}
            )
            answer = connection.getresponse()
            content = answer.read()
            left_out = {"transfer-encoding", "connection", "content-length"}
            headers = [
                (name, value) for name, value in answer.getheaders() if name.lower() not in left_out
            ]
            length = (
                answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            )
            self._answer(answer.status, headers, content, length)
            connection.close()

        def _answer(
            self,
            status: int,
            headers: list[tuple[str, str]],
            content: bytes,
            length: str | None = None,
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a reset that we made

    proxy = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    yield Proxy(f"http://127.0.0.1:{proxy.server_port}", trouble)
    proxy.shutdown()
    proxy.server_close()
