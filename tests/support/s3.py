"""An S3 server on the loopback, and a proxy in front of it that makes requests fail.

`s3_fixtures.py` has the fixtures that start them.
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

ACCESS = "AKIAPLANTEDBYTHETESTS"
SECRET = "planted/secret/that/must/be/written/nowhere"
FAILURES = ("500", "503", "reset", "lost")  # lost: carried out, and then reset


@dataclass
class S3:
    """The address of a server. environment: the variables with which a process uses it."""

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

    def use(self, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
        """Make this process use the server, with more environment `variables`."""
        for name, value in {**self.environment, **variables}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_PROFILE", raising=False)

    def bucket(self) -> str:
        """Make an empty bucket; return its name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        storage.filesystem("s3://")[0].mkdir(name)
        return name


@dataclass
class Trouble:
    """What the proxy does to requests.

    share: of the requests that fail, by turns with one of FAILURES. away: every request is
    reset. puts_until_away: the server goes away for good after so many PUTs of scores. counts: of
    the requests so far, by outcome.
    """

    share: float = 0.0
    away: bool = False
    puts_until_away: int | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("passed", *FAILURES), 0))
    _random: random.Random = field(default_factory=lambda: random.Random(7))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def outcome(self, method: str, path: str) -> str:
        """Decide what happens to a request: "passed" or one of FAILURES."""
        with self._lock:
            if self.puts_until_away is not None and method == "PUT" and "/scores/" in path:
                self.puts_until_away -= 1
                self.away = self.away or self.puts_until_away < 0
            fails = self._random.random() < self.share
            outcome = "passed"
            if self.away:
                outcome = "reset"
            elif fails:
                failures_so_far = sum(self.counts[name] for name in FAILURES)
                outcome = FAILURES[failures_so_far % len(FAILURES)]
            self.counts[outcome] += 1
            return outcome


@dataclass
class Proxy(S3):
    """A proxy in front of the server; `trouble` may be set at any time."""

    trouble: Trouble = field(default_factory=Trouble)


@contextmanager
def proxy_before(server: S3) -> Iterator[Proxy]:
    """Run a proxy in front of `server`."""
    trouble = Trouble()
    target = urlsplit(server.endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _serve(self) -> None:
            # the base class has answered a header "Expect: 100-continue"
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            outcome = trouble.outcome(self.command, self.path)
            if outcome == "passed":
                self._forward(body)
            elif outcome == "reset":
                self._reset()
            elif outcome == "lost":
                self._ask(body)
                self._reset()
            else:
                content = b"<Error><Code>InternalError</Code></Error>"
                self._answer(int(outcome), [("Content-Type", "application/xml")], content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

        def _reset(self) -> None:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True

        def _ask(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
            connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
            headers = {**dict(self.headers.items()), "Host": target.netloc}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return answer, content

        def _forward(self, body: bytes) -> None:
            answer, content = self._ask(body)
            left_out = {"transfer-encoding", "connection", "content-length"}
            kept_headers = [
                (name, value) for name, value in answer.getheaders() if name.lower() not in left_out
            ]
            length = str(len(content))
            if self.command == "HEAD":
                length = answer.getheader("Content-Length") or length
            self._answer(answer.status, kept_headers, content, length)

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
            pass  # our own resets

    proxy = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    yield Proxy(f"http://127.0.0.1:{proxy.server_port}", trouble)
    proxy.shutdown()
    proxy.server_close()
