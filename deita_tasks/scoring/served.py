"""What scorers behind a server share: options, the API key, concurrent requests."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import NamedTuple, Self, TypeAlias

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from deita_tasks.errors import ModelError, UsageError
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.stopping import raise_if_stopped, stopped_by
from deita_tasks.presets import SERVER_ATTEMPTS, SERVER_CONCURRENCY, SERVER_KEY_ENV, SERVER_TIMEOUT
from deita_tasks.records import ModelOutput
from deita_tasks.scoring.base import Scorer
from deita_tasks.scoring.http_client import JSONObject, Refused, Server, check_url

PROBE_PAIR = ("Write a haiku.", "Rain on the old pond.")
STOP_INTERVAL = 0.5  # seconds between two checks whether to stop

SecretReader: TypeAlias = Callable[[str], str]  # the name of a Secret block -> its value
_secret_reader: SecretReader | None = None


def set_secret_reader(reader: SecretReader | None) -> None:
    """Register the function that reads Prefect Secret blocks, for the option `api_key_block`.

    Scorers know nothing of Prefect: `deita_tasks.tasks` registers it in every process that runs
    tasks.
    """
    global _secret_reader
    _secret_reader = reader


class NoScore(Exception):
    """An answer without a score. `str` says why."""


class _OtherRequestFailed(Exception):
    """Another request failed, so this one is not tried again."""


class Rating(NamedTuple):
    """A pair's score, NaN if it has none.

    `truncated_tokens`: tokens left out of its prompt. `problem`: why it has no score.
    """

    score: float
    truncated_tokens: int = 0
    problem: str | None = None


class ServedScorer(Scorer):
    """Base class of scorers behind an OpenAI-compatible server.

    A pair that the server refuses, or answers without a score, has a problem. A short pair goes
    first: if that has no score, no pair would have one and no row is at fault, so it raises
    ModelError. A server that does not answer raises ServerError (`http_client.Server.post`).
    """

    model: str = Field(min_length=1, description="the model's name on the server")
    base_url: str = Field(description="address of the API, such as http://localhost:8000/v1")
    api_key_env: str = Field(
        SERVER_KEY_ENV,
        min_length=1,
        description="environment variable with the server's key, if it needs one",
    )
    api_key_block: str | None = Field(
        None, min_length=1, description="Prefect Secret block with the key, instead of a variable"
    )
    concurrency: int = Field(SERVER_CONCURRENCY, ge=1, description="concurrent requests")
    timeout: float = Field(SERVER_TIMEOUT, gt=0, description="seconds until a request fails")
    attempts: int = Field(SERVER_ATTEMPTS, ge=1, description="attempts per request, at most")

    _server: Lazy[Server] = PrivateAttr(default_factory=Lazy)
    _secret: Lazy[str] = PrivateAttr(default_factory=Lazy)
    _probe_rating: Lazy[Rating] = PrivateAttr(default_factory=Lazy)

    @model_validator(mode="after")
    def _check_base_url(self) -> Self:
        """Check the URL; a validator of the field would repeat it, and a password in it."""
        check_url(self.base_url)
        return self

    @abstractmethod
    def rate(self, pair: tuple[str, str]) -> Rating:
        """Return the server's rating of one pair; called from several threads.

        May raise Refused or NoScore, and whatever `post` raises.
        """

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        if pairs:
            self._probe_rating.get(self._rate_probe)
        ratings = self._rate_all(pairs)
        return ModelOutput(
            np.array([rating.score for rating in ratings], np.float32),
            np.array([rating.truncated_tokens for rating in ratings], np.int32),
            {
                position: rating.problem
                for position, rating in enumerate(ratings)
                if rating.problem is not None
            },
        )

    def post(self, path: str, body: JSONObject) -> JSONObject:
        """Return the server's answer to a request for `model` (see `http_client.Server.post`)."""
        server = self._server.get(self._connect)
        return server.post(path, {"model": self.model, **body})

    def release(self) -> None:
        """Forget the connections and the key."""
        self._server.release()
        self._secret.release()

    def _rate_probe(self) -> Rating:
        try:
            return self.rate(PROBE_PAIR)
        except (Refused, NoScore) as error:
            raise ModelError(
                f"{self.base_url}: the model {self.model!r} scores nothing, not even "
                f"{PROBE_PAIR[0]!r}: {error}"
            ) from None

    def _rate_all(self, pairs: Sequence[tuple[str, str]]) -> list[Rating]:
        """Return the ratings in the order of `pairs`.

        After the first error no request is started or tried again.
        """
        failed = threading.Event()

        def stop_after_failure() -> None:
            if failed.is_set():
                raise _OtherRequestFailed

        def rate(pair: tuple[str, str]) -> Rating:
            try:
                # the caller's own check applies in the caller's thread only
                with stopped_by(stop_after_failure):
                    stop_after_failure()
                    return self.rate(pair)
            except _OtherRequestFailed:
                return Rating(float("nan"))
            except (Refused, NoScore) as error:
                return Rating(float("nan"), problem=str(error))
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(self.concurrency, "deita-request") as threads:
            futures = [threads.submit(rate, pair) for pair in pairs]
            try:
                while wait(futures, timeout=STOP_INTERVAL).not_done:
                    raise_if_stopped()
            except BaseException:
                failed.set()
                raise
        for future in futures:
            if error := future.exception():
                raise error
        return [future.result() for future in futures]

    def _connect(self) -> Server:
        self._read_key()  # so that a missing key is an error before the first request
        return Server(
            check_url(self.base_url),
            self._read_key,
            timeout=self.timeout,
            attempts=self.attempts,
            concurrency=self.concurrency,
        )

    def _read_key(self) -> str | None:
        """Return the server's key, read at each use.

        It is part of no option, fingerprint, log or error.
        """
        if self.api_key_block is not None:
            return self._secret.get(self._read_secret)
        key = os.environ.get(self.api_key_env)
        default = type(self).model_fields["api_key_env"].default
        if not key and self.api_key_env != default:
            raise UsageError(
                f"api_key_env = {self.api_key_env!r}: there is no such environment variable; set "
                "it to the server's key"
            )
        return key

    def _read_secret(self) -> str:
        if _secret_reader is None or self.api_key_block is None:
            raise UsageError(
                "api_key_block: only a run can read Prefect's Secret blocks; set api_key_env "
                "instead"
            )
        return _secret_reader(self.api_key_block)
