"""What scorers behind a server share: options, the API key, concurrent requests."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple, Self, TypeAlias

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from deita_tasks.conversations import Conversation
from deita_tasks.errors import DeitaError, ModelError, ServerError, UsageError
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.stopping import raise_if_stopped
from deita_tasks.presets import SERVER_ATTEMPTS, SERVER_CONCURRENCY, SERVER_KEY_ENV, SERVER_TIMEOUT
from deita_tasks.records import ModelOutput
from deita_tasks.scoring.base import FinishedRows, RowScores, Scorer
from deita_tasks.scoring.concurrent_map import concurrent_map
from deita_tasks.scoring.http_client import (
    JSONObject,
    Refused,
    RequestFailed,
    Server,
    check_url,
    single_attempt,
)

PROBE_PAIR = ("Write a haiku.", "Rain on the old pond.")
SUSPECTS_IN_A_ROW = 5  # so many different texts do not all crash a server that works

SecretReader: TypeAlias = Callable[[str], str]  # the name of a Secret block -> its value
_secret_reader: SecretReader | None = None


def set_secret_reader(reader: SecretReader | None) -> None:
    """Register the function that reads Prefect Secret blocks, for the option `api_key_block`.

    Scorers know nothing of Prefect: `deita_tasks.tasks` registers it in every process that runs
    tasks.
    """
    global _secret_reader
    _secret_reader = reader


def read_secret(name: str) -> str:
    """Return the value of a Prefect Secret block. Raises UsageError where none can be read."""
    if _secret_reader is None:
        raise UsageError(
            "api_key_block: only a run can read Prefect's Secret blocks; set api_key_env instead"
        )
    return _secret_reader(name).strip()  # a header holds no line end


class NoScore(Exception):
    """An answer without a score. `str` says why."""


class Rating(NamedTuple):
    """A pair's score, NaN if it has none.

    `truncated_tokens`: tokens left out of its prompt. `problem`: why it has no score.
    """

    score: float
    truncated_tokens: int = 0
    problem: str | None = None


class _Suspect(NamedTuple):
    """A pair that gets no answer while the probe does. `problem` says what happened."""

    problem: str


class ServedScorer(Scorer):
    """Base class of scorers behind an OpenAI-compatible server.

    A pair that the server refuses, or answers without a score, has a problem. A short pair goes
    first, the probe: if that has no score, no pair would have one and no row is at fault, so it
    raises ModelError. The probe also decides who is at fault when all attempts at a pair fail: if
    it gets no answer either, the server is away (ServerError); if it does, the pair has a problem.
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
    _retrial: Lazy[threading.Lock] = PrivateAttr(default_factory=Lazy)

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
        """Return the scores of pairs, float32 (n,), in their order, however the answers come.

        Raises ServerError if the server is away, ModelError if it scores not even a short pair,
        UsageError for a missing key. Work that is paid for is lost then: a run uses `iterate_rows`.
        """
        ratings = dict(self._iterate_ratings(pairs))
        return _model_output([ratings[position] for position in range(len(pairs))])

    def iterate_rows(self, conversations: Sequence[Conversation]) -> Iterator[FinishedRows]:
        """Yield each conversation as soon as all its pairs are answered (`Scorer.iterate_rows`)."""
        pairs_by_row = [conversation.pairs for conversation in conversations]
        places = [
            (row, turn) for row, pairs in enumerate(pairs_by_row) for turn in range(len(pairs))
        ]
        ratings_by_row: dict[int, dict[int, Rating]] = defaultdict(dict)
        flat_pairs = [pair for pairs in pairs_by_row for pair in pairs]
        for position, rating in self._iterate_ratings(flat_pairs):
            row, turn = places[position]
            ratings = ratings_by_row[row]
            ratings[turn] = rating
            if len(ratings) == len(pairs_by_row[row]):
                output = _model_output([ratings[turn] for turn in sorted(ratings)])
                yield FinishedRows([row], RowScores(output, {}))
        without_pairs = [row for row, pairs in enumerate(pairs_by_row) if not pairs]
        if without_pairs:
            yield FinishedRows(without_pairs, RowScores(_model_output([]), {}))

    def post(self, path: str, body: JSONObject) -> JSONObject:
        """Return the server's answer to a request for `model` (see `http_client.Server.post`).

        Also raises UsageError for a missing key.
        """
        server = self._server.get(self._connect)
        return server.post(path, {"model": self.model, **body})

    def release(self) -> None:
        """Forget the connections and the key; the next request reads the key again."""
        self._server.release()
        self._secret.release()

    def _rate_probe(self) -> Rating:
        """Return the rating of PROBE_PAIR.

        Raises ModelError if that has none, and what `post` raises.
        """
        try:
            return self.rate(PROBE_PAIR)
        except (Refused, NoScore) as error:
            raise ModelError(
                f"{self.base_url}: the model {self.model!r} scores nothing, not even "
                f"{PROBE_PAIR[0]!r}: {error}"
            ) from None

    def _iterate_ratings(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Rating]]:
        """Yield the position and the rating of each pair as they come.

        A suspect is held back until another pair is answered after it, or all have ended. If
        several in a row are suspects, the fault is the server's, although it answers the probe.
        """
        if not pairs:
            return
        self._probe_rating.get(self._rate_probe)
        suspects: list[tuple[int, Rating]] = []
        with closing(concurrent_map(self._rate, pairs, self.concurrency)) as outcomes:
            for position, outcome in outcomes:
                if isinstance(outcome, Rating):
                    yield from suspects
                    suspects.clear()
                    yield position, outcome
                    continue
                suspects.append((position, Rating(float("nan"), problem=outcome.problem)))
                if len(suspects) == SUSPECTS_IN_A_ROW:
                    raise ServerError(
                        f"{self.base_url}: answers a short pair, but not {len(suspects)} others "
                        f"in a row, at last: {outcome.problem}; check the server's log and run "
                        "again: finished work is kept"
                    )
        yield from suspects

    def _rate(self, pair: tuple[str, str]) -> Rating | _Suspect:
        """Return a pair's rating, NaN with a problem if the server refuses it or gives no score.

        Where the server or the model seems at fault, the pair is tried again beside the probe.
        Raises what the probe raises, and ServerError for too many requests or no server at all.
        """
        try:
            return self.rate(pair)
        except (Refused, NoScore) as error:
            return Rating(float("nan"), problem=str(error))
        except (RequestFailed, ModelError) as error:
            return self._rate_again(pair, error)

    def _rate_again(self, pair: tuple[str, str], first_error: DeitaError) -> Rating | _Suspect:
        """Return the rating of a pair that failed: the server may be at fault, or the pair.

        The probe goes first. If that fails too, its error is the server's. If it is answered and
        the pair then fails once more, the server cannot be blamed for it.
        """
        with self._retrial.get(threading.Lock):
            raise_if_stopped()
            self._probe_rating.release()
            self._probe_rating.get(self._rate_probe)
            try:
                with single_attempt():
                    return self.rate(pair)
            except (Refused, NoScore) as error:
                return Rating(float("nan"), problem=str(error))
            except (RequestFailed, ModelError):
                reason = getattr(first_error, "reason", str(first_error))
                return _Suspect(f"the server answers a short pair, but not this one: {reason}")

    def _connect(self) -> Server:
        """Return the server behind `base_url`; sends nothing yet.

        Raises UsageError for a missing key.
        """
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
        block = self.api_key_block
        if block is not None:
            return self._secret.get(lambda: read_secret(block))
        key = os.environ.get(self.api_key_env, "").strip()  # a header holds no line end
        default = type(self).model_fields["api_key_env"].default
        if not key and self.api_key_env != default:
            raise UsageError(
                f"api_key_env = {self.api_key_env!r}: there is no such environment variable; set "
                "it to the server's key"
            )
        return key or None


def _model_output(ratings: Sequence[Rating]) -> ModelOutput:
    """Return the ratings of n pairs as float32 (n,) scores, with their problems by position."""
    return ModelOutput(
        np.array([rating.score for rating in ratings], np.float32),
        np.array([rating.truncated_tokens for rating in ratings], np.int32),
        {
            position: rating.problem
            for position, rating in enumerate(ratings)
            if rating.problem is not None
        },
    )
