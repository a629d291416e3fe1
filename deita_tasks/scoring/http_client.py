"""Requests to an OpenAI-compatible server.

JSON in, JSON out; retries while the server is busy; the key appears in no message.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from deita_tasks.errors import ModelError, ServerError
from deita_tasks.models.stopping import raise_if_stopped
from deita_tasks.strict_json import JSON

JSONObject: TypeAlias = Mapping[str, JSON]

MAX_PAUSE = 30.0  # seconds between two attempts if the server names no time
MAX_RETRY_AFTER = 600.0  # seconds that a server may ask us to wait
BUSY_STATUS = {408, 425, 429}  # and every 5xx
FATAL_STATUS = {401, 403, 404, 405}  # every request would fail: a wrong key, model or path
STOP_INTERVAL = 0.5  # seconds of a pause between two checks whether to stop


class Refused(Exception):
    """The server understood this one request and refuses it, for example because of its length.

    `str` says why.
    """


class _Busy(Exception):
    """The request may succeed later. `retry_after`: seconds that the server asks us to wait."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Server:
    """A server's API.

    `url`: its base, such as http://localhost:8000/v1. `key`: called for the key before each
    request; returns None if the server needs none. Up to `concurrency` threads may call `post`.
    """

    def __init__(
        self,
        url: str,
        key: Callable[[], str | None],
        *,
        timeout: float,
        attempts: int,
        concurrency: int,
    ) -> None:
        self.url = url
        self._key = key
        self._timeout = timeout
        self._attempts = attempts
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._client = httpx.Client(timeout=timeout, limits=limits)

    def post(self, path: str, body: JSONObject) -> JSONObject:
        """Return the JSON object with which the server answers `body`.

        Tries again if the server is busy (429), broken (5xx, a dropped connection, half an answer)
        or too slow: after the time in its Retry-After, else after random, growing pauses. The
        pauses can be stopped (`raise_if_stopped`).

        Raises ServerError when all attempts have failed, ModelError for a wrong key, model or
        address, Refused if only this request is at fault.
        """
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=_retry_pause,
            retry=retry_if_exception_type(_Busy),
            sleep=_sleep,
            reraise=True,
        )
        url = f"{self.url}/{path}"
        try:
            return retrying(self._post_once, url, body)
        except _Busy as error:
            raise ServerError(
                f"{url}: no answer in {self._attempts} attempts, at last {error}; run again when "
                "the server is back: finished work is kept"
            ) from None

    def _post_once(self, url: str, body: JSONObject) -> JSONObject:
        key = self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            response = self._client.post(url, json=body, headers=headers)
        except httpx.TimeoutException:
            raise _Busy(f"no answer within {self._timeout:g} s") from None
        except httpx.TransportError as error:
            raise _Busy(f"{type(error).__name__} ({error})") from None
        status = response.status_code
        if 200 <= status < 300:
            return _json_object(response)
        reason = f"status {status}: {_error_message(response)}"
        if key:
            reason = reason.replace(key, "***")
        if status in BUSY_STATUS or status >= 500:
            raise _Busy(reason, _parse_retry_after(response.headers.get("retry-after")))
        if status in FATAL_STATUS or status < 400:
            raise ModelError(
                f"{url}: {reason}; expected an OpenAI-compatible API at this address, the model's "
                "name on the server, and its key"
            )
        raise Refused(f"the server refuses it, {reason}")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def check_url(url: str) -> str:
    """Return `url` without its last slash.

    Raises ValueError if it is not the address of an API; the message repeats nothing secret.
    """
    example = "expected one such as http://localhost:8000/v1"
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError(f"the base URL is not valid; {example}") from None
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError(
            "the base URL contains a user, a password, a query or a fragment; remove them: the key "
            "comes from an environment variable"
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"the base URL {url!r} is not the address of a server; {example}")
    return url.rstrip("/")


def lookup(answer: JSON, *path: str | int) -> JSON:
    """Return the value at `path` in a server's answer, None if there is none."""
    value = answer
    for step in path:
        if isinstance(step, str) and isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def shorten(text: str, length: int = 200) -> str:
    """Return `text` on one line, truncated to `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _json_object(response: httpx.Response) -> JSONObject:
    try:
        answer: JSON = response.json()
    except ValueError:
        raise _Busy("an answer that is not JSON") from None
    if not isinstance(answer, Mapping):
        raise _Busy(f"a JSON {type(answer).__name__}, not an object")
    return answer


def _error_message(response: httpx.Response) -> str:
    """Return what the server says about an error.

    OpenAI's {"error": {"message"}}, or the beginning of the body.
    """
    try:
        message: JSON = response.json()
    except ValueError:
        message = response.text
    for name in ("error", "message", "detail"):
        if isinstance(message, Mapping) and message.get(name):
            message = message[name]
    return shorten(str(message)) or response.reason_phrase


def _parse_retry_after(header: str | None) -> float | None:
    """Return the seconds to wait, from seconds or an HTTP date; None for any other header."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        date = date.replace(tzinfo=date.tzinfo or UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    return min(seconds, MAX_RETRY_AFTER) if seconds >= 0 else 0.0


_growing_pause = wait_random_exponential(multiplier=0.5, max=MAX_PAUSE)


def _sleep(seconds: float) -> None:
    """Sleep for up to ten minutes; can be stopped at any time."""
    end = time.monotonic() + seconds
    raise_if_stopped()
    while (remaining := end - time.monotonic()) > 0:
        time.sleep(min(remaining, STOP_INTERVAL))
        raise_if_stopped()


def _retry_pause(state: RetryCallState) -> float:
    """Return the seconds until the next attempt.

    What the server asks for plus up to a second, so that requests do not all return at once; else a
    random, growing time.
    """
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Busy) and error.retry_after is not None:
        return error.retry_after + random.random()
    return _growing_pause(state)
