"""What the scorers behind a server have in common: their options, requests side by side, and whose
fault it is that there is no score.
"""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from deita_tasks.errors import ModelError, UsageError
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.stopping import may_stop, stopped_by
from deita_tasks.records import ModelOutput
from deita_tasks.scoring.base import Scorer
from deita_tasks.scoring.http_client import Refused, Server, checked_url

PROBE = ("Write a haiku.", "Rain on the old pond.")


class NoScore(Exception):
    """An answer in which there is no score. `str` says why."""


class _Ended(Exception):
    """The other requests have ended: this one is not tried again."""


class Rating(NamedTuple):
    """A pair's score, NaN where it has none, the tokens left out of its prompt, and why it has no
    score.
    """

    score: float
    truncated_tokens: int = 0
    problem: str | None = None


class ServedScorer(Scorer):
    """A scorer behind an OpenAI-compatible server: a pair that the server refuses, or answers
    without a score, has a problem.

    A short pair goes first. What is refused there would be refused for all, and is no row's fault:
    it raises ModelError. A server that does not answer raises ServerError (`http.Server.post`).
    """

    # Reads a Prefect Secret block by its name. The tasks set it: scorers know no Prefect.
    read_block: ClassVar[Callable[[str], str] | None] = None

    model: str = Field(min_length=1, description="the model's name on the server")
    base_url: str = Field(description="where the API is: http://localhost:8000/v1")
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        min_length=1,
        description="environment variable with the server's key, if it wants one",
    )
    api_key_block: str | None = Field(
        None, min_length=1, description="Prefect Secret block with the key, in its place"
    )
    concurrency: int = Field(16, ge=1, description="requests at a time")
    timeout: float = Field(120.0, gt=0, description="seconds until a request counts as lost")
    attempts: int = Field(6, ge=1, description="how often a request is made, at most")

    _server: Lazy[Server] = PrivateAttr(default_factory=Lazy)
    _secret: Lazy[str] = PrivateAttr(default_factory=Lazy)
    _proof: Lazy[Rating] = PrivateAttr(default_factory=Lazy)

    @model_validator(mode="after")
    def _url(self) -> Self:
        """Not a validator of the field: its error would repeat the URL, and a password in it."""
        checked_url(self.base_url)
        return self

    @abstractmethod
    def rate(self, pair: tuple[str, str]) -> Rating:
        """What the server says of one pair; called from several threads. May raise Refused or
        NoScore, beside what `post` raises.
        """

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        if pairs:
            self._proof.get(self._prove)
        rated = self._rate_all(pairs)
        values = np.array([one.score for one in rated], np.float32)
        problems = {i: one.problem for i, one in enumerate(rated) if one.problem is not None}
        return ModelOutput(
            values, np.array([one.truncated_tokens for one in rated], np.int32), problems
        )

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The server's answer, as `http.Server.post` says."""
        return self._server.get(self._connect).post(path, {"model": self.model, **body})

    def release(self) -> None:
        """Forgets the connections and the key."""
        for held in (self._server, self._secret):
            held.release()

    def _prove(self) -> Rating:
        try:
            return self.rate(PROBE)
        except (Refused, NoScore) as error:
            raise ModelError(
                f"{self.base_url}: the model {self.model!r} scores nothing, not even "
                f"{PROBE[0]!r}: {error}"
            ) from None

    def _rate_all(self, pairs: Sequence[tuple[str, str]]) -> list[Rating]:
        """Ratings in the order of `pairs`; after the first error no more requests are begun, nor
        tried again.
        """
        failed = threading.Event()

        def check() -> None:
            if failed.is_set():
                raise _Ended

        def rated(pair: tuple[str, str]) -> Rating:
            try:
                with stopped_by(check):  # what stops the caller is known in its own thread alone
                    check()
                    return self.rate(pair)
            except _Ended:
                return Rating(float("nan"))
            except (Refused, NoScore) as error:
                return Rating(float("nan"), problem=str(error))
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(self.concurrency, "deita-request") as threads:
            waiting = [threads.submit(rated, pair) for pair in pairs]
            try:
                while wait(waiting, timeout=0.5).not_done:
                    may_stop()
            except BaseException:
                failed.set()
                raise
        for error in filter(None, [future.exception() for future in waiting]):
            raise error
        return [future.result() for future in waiting]

    def _connect(self) -> Server:
        self._key()  # a missing one is told before the first request
        options = {
            "timeout": self.timeout,
            "attempts": self.attempts,
            "concurrency": self.concurrency,
        }
        return Server(checked_url(self.base_url), self._key, **options)  # type: ignore[arg-type]

    def _key(self) -> str | None:
        """Read where it is used: the key is part of no option, fingerprint, log or error."""
        if self.api_key_block is not None:
            return self._secret.get(self._read_secret)
        key = os.environ.get(self.api_key_env)
        if not key and self.api_key_env != type(self).model_fields["api_key_env"].default:
            raise UsageError(
                f"api_key_env = {self.api_key_env!r}: no such environment variable here; set "
                "it to the server's key"
            )
        return key

    def _read_secret(self) -> str:
        if ServedScorer.read_block is None:
            raise UsageError(
                "api_key_block: only a run reads Prefect's Secret blocks; elsewhere "
                "give api_key_env"
            )
        return ServedScorer.read_block(self.api_key_block or "")
