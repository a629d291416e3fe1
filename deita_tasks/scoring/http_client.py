"""Requests to an OpenAI-compatible server.

JSON in, JSON out; retries while the server is busy; the key appears in no message.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from deita_tasks.errors import ModelError, ServerError, ServerUnreachable
from deita_tasks.models.stopping import STOP_INTERVAL, raise_if_stopped
from deita_tasks.scoring.bounded_http import MAX_BODY, Answer, BoundedClient, NoAnswer, Unreachable
from deita_tasks.strict_json import JSON, strict_json

JSONObject: TypeAlias = Mapping[str, JSON]

MAX_PAUSE = 30.0  # seconds between two attempts if the server names no time
MAX_RETRY_AFTER = 600.0  # seconds that a server may ask us to wait
BUSY_STATUS = {408, 425, 429}  # and every 5xx
REFUSED_STATUS = {400, 413, 422}  # about the body of one request; all other 4xx concern every one
FIRST_CONTACT_ATTEMPTS = 3  # at a server that nothing was ever heard of: a wrong port or name

_answered_urls: set[str] = set()  # servers that this process has had an answer from
_attempt_limit: ContextVar[float] = ContextVar("attempt_limit", default=float("inf"))


class Refused(Exception):
    """The server understood this one request and refuses it, for example because of its length.

    `str` says why.
    """


class RequestFailed(ServerError):
    """All attempts at a request failed: either the server or this request is at fault.

    `reason`: what happened, without advice.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class _Busy(NoAnswer):
    """The server asks to come back later. `retry_after`: in how many seconds."""

    def __init__(self, reason: str, status: int, retry_after: float | None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after


@contextmanager
def single_attempt() -> Iterator[None]:
    """Within this block, in this thread, `Server.post` tries no request again."""
    token = _attempt_limit.set(1)
    try:
        yield
    finally:
        _attempt_limit.reset(token)


class Server:
    """A server's API.

    `url`: its base, such as http://localhost:8000/v1. `key`: called for the key before each
    request; returns None if the server needs none. `timeout`: seconds for one attempt at a request,
    from its start to the answer's last byte. Up to `concurrency` threads may call `post`.
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
        self._attempts = attempts
        self._client = BoundedClient(timeout, concurrency)

    def post(
        self, path: str, body: JSONObject, before_attempt: Callable[[], None] = lambda: None
    ) -> JSONObject:
        """Return the JSON object with which the server answers `body`.

        before_attempt: called before each attempt; may wait for a limit of the caller's.

        Tries again if the server is busy (429), broken (5xx, a dropped connection, half an answer)
        or too slow: after the time in its Retry-After, else after random, growing pauses. Requests
        and pauses can be stopped (`raise_if_stopped`).

        Raises ServerUnreachable if there is no server at this address, RequestFailed when all
        attempts have failed, ServerError if they were too many for the server (429), ModelError for
        a wrong key, model or address, Refused if only this request is at fault.
        """
        retrying = Retrying(
            stop=self._is_last_attempt,
            wait=_retry_pause,
            retry=retry_if_exception_type(NoAnswer),
            sleep=_sleep,
            reraise=True,
        )
        url = f"{self.url}/{path}"
        try:
            return retrying(self._post_once, url, body, before_attempt)
        except NoAnswer as error:
            attempts = retrying.statistics["attempt_number"]
            raise self._failure(url, attempts, error) from None

    def _post_once(
        self, url: str, body: JSONObject, before_attempt: Callable[[], None]
    ) -> JSONObject:
        """Return the server's JSON object at one attempt.

        Raises NoAnswer if another attempt may succeed, as _Busy for a status that says so; Refused
        if only this request is at fault; ModelError if every request would fail, as with a wrong
        key.
        """
        before_attempt()
        key = self._key()
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        answer = self._client.post(url, strict_json(body), headers)
        _answered_urls.add(self.url)
        status = answer.status
        if 200 <= status < 300:
            return _json_object(answer)
        reason = f"status {status}: {shorten(self._mask(_error_message(answer)))}"
        if status in BUSY_STATUS or status >= 500:
            retry_after = _parse_retry_after(answer.headers.get("retry-after"))
            raise _Busy(reason, status, retry_after)
        if status in REFUSED_STATUS:
            raise Refused(f"the server refuses it, {reason}")
        raise ModelError(
            f"{url}: {reason}; expected an OpenAI-compatible API at this address, the model's "
            "name on the server, and its key"
        )

    def _is_last_attempt(self, state: RetryCallState) -> bool:
        """Return whether no attempt follows; tenacity asks after each that failed.

        A server that never answered gets FIRST_CONTACT_ATTEMPTS at most: its address is probably
        wrong.
        """
        error = state.outcome.exception() if state.outcome else None
        attempts = min(self._attempts, _attempt_limit.get())
        if self._was_never_there(error):
            attempts = min(attempts, FIRST_CONTACT_ATTEMPTS)
        return state.attempt_number >= attempts

    def _was_never_there(self, error: BaseException | None) -> bool:
        """Return whether there is no connection, and this process had no answer before either."""
        return isinstance(error, Unreachable) and self.url not in _answered_urls

    def _failure(self, url: str, attempts: int, error: NoAnswer) -> ServerError:
        """Return what to raise after the last attempt, with advice on what to do.

        ServerUnreachable if the server never answered, ServerError if it had too many requests,
        else RequestFailed. The key is masked.
        """
        reason = self._mask(str(error))
        if self._was_never_there(error):
            return ServerUnreachable(
                f"{url}: cannot connect ({reason}); expected an OpenAI-compatible server at this "
                "address: start it, or correct the URL"
            )
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        reason = f"no answer in {tries}, at last {reason}"
        message = f"{url}: {reason}"
        if isinstance(error, _Busy) and error.status == httpx.codes.TOO_MANY_REQUESTS:
            return ServerError(
                f"{message}; lower the concurrency, or run again later: finished work is kept"
            )
        advice = "run again when the server is back: finished work is kept"
        return RequestFailed(f"{message}; {advice}", reason)

    def _mask(self, text: str) -> str:
        """Return `text` with *** for the key, which a server may repeat in its error messages."""
        key = self._key()
        return text.replace(key, "***") if key else text


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
    """Return the value at `path` in a server's answer, None if there is none.

    A text is a key of an object, a number (from 0) a place in a list. Never raises: a server may
    answer anything.
    """
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
    """Return `text` on one line, truncated to `length` characters.

    Without control characters, which would steer a terminal, and lone surrogates, which no file
    holds.
    """
    line = " ".join(text.split())
    line = line if len(line) <= length else line[: length - 1] + "…"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def _json_object(answer: Answer) -> JSONObject:
    """Return the object in the body of a successful answer.

    Raises Refused for a body over MAX_BODY, and NoAnswer, so that it is requested again, for a body
    that is not a JSON object, such as half an answer or a proxy's page.
    """
    if answer.is_too_long:
        raise Refused(
            f"the server answers with more than {MAX_BODY:,} bytes; expected a short JSON object"
        )
    content = _parse_json(answer.body)
    if isinstance(content, Mapping):
        return content
    found = "an answer that is not JSON"
    if content is not None:
        found = f"a JSON {type(content).__name__}, not an object"
    raise NoAnswer(found)


def _parse_json(body: bytes) -> JSON:
    """Return the value of JSON text, None if it is not JSON."""
    try:
        value: JSON = json.loads(body)
    except (ValueError, RecursionError):  # the latter for a hundred thousand brackets
        return None
    return value


def _error_message(answer: Answer) -> str:
    """Return what the server says about an error.

    OpenAI's {"error": {"message"}}, or the beginning of the body.
    """
    message = _parse_json(answer.body)
    for name in ("error", "message", "detail"):
        if isinstance(message, Mapping) and message.get(name):
            message = message[name]
    if not isinstance(message, str):
        message = answer.body.decode(errors="replace")
    return message.strip() or answer.reason_phrase


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
