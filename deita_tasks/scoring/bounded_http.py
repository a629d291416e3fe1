"""HTTP requests that end: a deadline for the whole request, and a limit on the answer's size.

A server can delay every single read and still never finish, and a small compressed body can
decode to gigabytes. Neither may hold a run or fill its memory.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
import zlib
from collections.abc import Mapping
from concurrent.futures import Future, wait
from functools import lru_cache
from typing import NamedTuple

import httpx

from deita_tasks.models.stopping import STOP_INTERVAL, raise_if_stopped

MAX_BODY = 1_000_000  # bytes, decoded; a score takes a few hundred
CONNECT_TIMEOUT = 10.0  # seconds; a server that works accepts a connection at once
GRACE = 5.0  # seconds that a stop leaves to a request under way: its answer may be paid for


class Answer(NamedTuple):
    """A server's answer. `body`: decoded, truncated if `is_too_long`."""

    status: int
    reason_phrase: str
    headers: httpx.Headers
    body: bytes
    is_too_long: bool


class NoAnswer(Exception):
    """No complete answer came; the request may succeed later. `str` says why."""


class Unreachable(NoAnswer):
    """There is no connection: the port is closed, or the name has no address."""


class BoundedClient:
    """Posts requests, up to `connections` at a time, from any thread.

    timeout: seconds for one request, from the look-up of the name to the answer's last byte.
    """

    def __init__(self, timeout: float, connections: int) -> None:
        self._timeout = timeout
        self._connect_timeout = min(timeout, CONNECT_TIMEOUT)
        self._loop = _event_loop()
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=self._connect_timeout),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            headers={"Accept-Encoding": "identity"},
        )
        weakref.finalize(self, _close, self._client, self._loop)

    def post(self, url: str, content: str, headers: Mapping[str, str]) -> Answer:
        """Return the server's answer to `content`, whatever its status; redirects are answers.

        Raises NoAnswer. `raise_if_stopped` can end the wait.
        """
        coroutine = self._post(url, content.encode(), headers)
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        while not wait([future], STOP_INTERVAL).done:
            _cancel_if_stopped(future)
        return future.result()

    async def _post(self, url: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        """Return the answer to one request; runs on the event loop, under one deadline.

        Raises Unreachable if no connection comes about, and NoAnswer for every other failure on the
        way, a timeout among them.
        """
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream("POST", url, content=content, headers=headers) as response,
            ):
                body, is_too_long = await _read(response)
        except TimeoutError:
            raise NoAnswer(f"no complete answer within {self._timeout:g} s") from None
        except httpx.ConnectTimeout:
            raise Unreachable(f"no connection within {self._connect_timeout:g} s") from None
        except httpx.ConnectError as error:
            raise Unreachable(_root_cause(error)) from None
        except httpx.TransportError as error:
            raise NoAnswer(_root_cause(error)) from None
        status, phrase = response.status_code, response.reason_phrase
        return Answer(status, phrase, response.headers, body, is_too_long)


@lru_cache(maxsize=1)
def _event_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that all requests run on, in a thread of its own.

    Only there one deadline covers all of a request: a blocking client has one for each read.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="deita-http", daemon=True).start()
    return loop


def _close(client: httpx.AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
    """Close a client's connections on their loop, without waiting: the program may be ending."""
    asyncio.run_coroutine_threadsafe(client.aclose(), loop)


def _cancel_if_stopped(future: Future[Answer]) -> None:
    """Cancel a request that has to stop, unless its answer comes within GRACE seconds.

    With that answer the caller goes on to its next check, which stops it.
    """
    try:
        raise_if_stopped()
    except BaseException:
        if wait([future], GRACE).done:
            return
        future.cancel()
        raise


async def _read(response: httpx.Response) -> tuple[bytes, bool]:
    """Return the decoded body, and whether it is longer than MAX_BODY and the rest left unread.

    httpx decodes whole chunks, and one of 64 kB may hold gigabytes, so this decodes up to a size.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise NoAnswer(f"a body in the encoding {encoding[:40]!r}; expected identity or gzip")
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    body = bytearray()
    received = 0
    async for chunk in response.aiter_raw():
        received += len(chunk)
        try:
            body += decoder.decompress(chunk, MAX_BODY + 1) if encoding == "gzip" else chunk
        except zlib.error as error:
            raise NoAnswer(f"a body that is not gzip, as its header says ({error})") from None
        if max(received, len(body)) > MAX_BODY:
            return bytes(body[:MAX_BODY]), True
    return bytes(body), False


def _root_cause(error: BaseException) -> str:
    """Return what the operating system says, such as "Connection refused", else the error.

    Libraries wrap it several times; the innermost error with an error number counts.
    """
    message = f"{type(error).__name__} ({error})"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            message = f"{type(cause).__name__}: {cause.strerror}"
        if isinstance(cause, BaseExceptionGroup):  # one for each address of the host
            cause = cause.exceptions[0]
        else:
            cause = cause.__cause__ or cause.__context__
    return message
