"""An OpenAI-compatible server: JSON in, JSON out, patience while it is busy, and a key that nothing
repeats.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from deita_tasks.errors import ModelError, ServerError
from deita_tasks.models.stopping import may_stop

LONGEST_PAUSE = 30.0  # seconds between two attempts where the server names no time
LONGEST_RETRY_AFTER = 600.0  # seconds that a server may ask us to wait
BUSY = {408, 425, 429}  # and every 5xx
UNFIT = {401, 403, 404, 405}  # no request of ours will get an answer: a wrong key, model or path


class Refused(Exception):
    """The server understood this one request and will not answer it: its text is too long, say.
    `str` says why.
    """


class _Busy(Exception):
    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class Server:
    """`url`: the API's base, http://localhost:8000/v1. `key`: asked for the key at each request;
    None for a server that wants none.

    `post` may be called from `concurrency` threads at a time.
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

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that the server answers to `body`.

        Asked again where the server is busy (429), broken (5xx, a dropped connection, half an
        answer) or does not answer in time: after what its Retry-After says, else after random,
        growing pauses. Raises ServerError when the attempts are used up, ModelError for a wrong
        key, model or address, Refused where this request alone is at fault. Between attempts it may
        be stopped (`may_stop`).
        """
        busy = retry_if_exception_type(_Busy)
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=_pause,
            retry=busy,
            sleep=_sleep,
            reraise=True,
        )
        try:
            return retrying(self._post_once, f"{self.url}/{path}", body)
        except _Busy as error:
            raise ServerError(
                f"{self.url}/{path}: no answer in {self._attempts} attempts, at last {error}; "
                "run again when the server is back: "
                "what was computed is kept"
            ) from None

    def _post_once(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        key = self._key()
        try:
            response = self._client.post(
                url, json=body, headers={"Authorization": f"Bearer {key}"} if key else {}
            )
        except httpx.TimeoutException:
            raise _Busy(f"no answer within {self._timeout:g} s") from None
        except httpx.TransportError as error:
            raise _Busy(f"{type(error).__name__} ({error})") from None
        status = response.status_code
        if 200 <= status < 300:
            return _object(response)
        said = f"status {status}: {_message(response)}"
        said = said.replace(key, "***") if key else said
        if status in BUSY or status >= 500:
            raise _Busy(said, _retry_after(response.headers.get("retry-after")))
        if status in UNFIT or status < 400:
            raise ModelError(
                f"{url}: {said}; expected an OpenAI-compatible API there, the model's name as "
                "the server has it, and its key"
            )
        raise Refused(f"the server refuses it, {said}")

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()


def checked_url(url: str) -> str:
    """`url` without its last slash. Raises ValueError, which repeats nothing secret, for one that
    is no address of an API.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError(
            "the base URL is none; expected one such as http://localhost:8000/v1"
        ) from None
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError(
            "the base URL holds a user, a password or a query; expected none: a key comes "
            "from an environment variable"
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(
            f"the base URL {url!r} is none; expected one such as http://localhost:8000/v1"
        )
    return url.rstrip("/")


def shortened(text: str, length: int = 200) -> str:
    """`text` in one line, or its beginning."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        raise _Busy("an answer that is not JSON") from None
    if not isinstance(answer, dict):
        raise _Busy(f"a JSON {type(answer).__name__}, not an object")
    return answer


def _message(response: httpx.Response) -> str:
    """What the server says of an error: OpenAI's {"error": {"message"}}, or the beginning of its
    body.
    """
    try:
        said: Any = response.json()
    except ValueError:
        said = response.text
    for name in ("error", "message", "detail"):
        said = said[name] if isinstance(said, dict) and said.get(name) else said
    return shortened(str(said)) or response.reason_phrase


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait, from seconds or an HTTP date; None for a header that is neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            at = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(seconds, LONGEST_RETRY_AFTER) if seconds >= 0 else 0.0


_growing = wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE)


def _sleep(seconds: float) -> None:
    """A pause of up to ten minutes, which may be stopped at any time."""
    end = time.monotonic() + seconds
    may_stop()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.5))
        may_stop()


def _pause(state: RetryCallState) -> float:
    """What the server asks for and up to a second more, so that not all come back at once; else a
    random time, growing.
    """
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Busy) and error.retry_after is not None:
        return error.retry_after + random.random()
    return _growing(state)
