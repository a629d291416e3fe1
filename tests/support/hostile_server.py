"""A server that answers each request with bytes of its own making: endless, slow or malformed."""

from __future__ import annotations

import socket
import socketserver
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Answer = Callable[[str], Iterator[bytes]]  # a request's body -> the pieces of the answer


class HostileServer:
    """`answer`: makes the answers. `requests`, `sent`: how many, and bytes, so far."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.url = ""
        self.requests = 0
        self.sent = 0
        self.closing = threading.Event()


class _Handler(socketserver.StreamRequestHandler):
    hostile: HostileServer
    request: socket.socket

    def handle(self) -> None:
        length = 0
        while (line := self.rfile.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = self.rfile.read(length).decode()
        self.hostile.requests += 1
        with suppress(OSError):
            for piece in self.hostile.answer(body):
                if self.hostile.closing.is_set():
                    return
                self.request.sendall(piece)
                self.hostile.sent += len(piece)


@contextmanager
def hostile_server(answer: Answer) -> Iterator[HostileServer]:
    """Serve `answer`; each connection gets one answer and is closed."""
    hostile = HostileServer(answer)
    handler = type("Handler", (_Handler,), {"hostile": hostile})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        hostile.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        try:
            yield hostile
        finally:
            hostile.closing.set()
            server.shutdown()
            thread.join()


def closed_port() -> str:
    """Return the URL of an API on a port of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def whole(
    body: bytes, headers: Mapping[str, str] | None = None, status: str = "200 OK"
) -> Iterator[bytes]:
    """Return the pieces of a complete answer."""
    lines = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    yield f"HTTP/1.1 {status}\r\n{head}\r\n".encode()
    yield body


def gzip_bomb(megabytes: int) -> bytes:
    """Return gzip of that many megabytes of spaces: a thousandth of the size."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    megabyte = b" " * 2**20
    pieces = [packer.compress(megabyte) for _ in range(megabytes)]
    return b"".join([*pieces, packer.flush()])
