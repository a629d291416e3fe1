"""The paper's scorers behind any OpenAI-compatible completions server that tells log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from deita_tasks.components import Fingerprint
from deita_tasks.models.lazy import Lazy
from deita_tasks.records import Conversation, Forecast
from deita_tasks.scoring.expected import expected_score
from deita_tasks.scoring.http_client import checked_url
from deita_tasks.scoring.prompt_encoder import Reader
from deita_tasks.scoring.served import NoScore, Rating, ServedScorer
from deita_tasks.scoring.tokens import DIGITS

MASKED = -9999.0  # what vLLM writes for minus infinity, which JSON has no number for


class CompletionsScorer(ServedScorer):
    """Expected score from the log-probabilities of "1" to "6" as the first token of a completion
    (section 2.3 and 2.4).

    The prompt goes out as token ids: servers tokenise text in ways of their own. `server` "vllm":
    the six are asked for by id, and come exact. "other": the `top_logprobs` most probable tokens
    are asked for, and the digits found among them by their text; where one is not among them, the
    pair has a problem, since a probability would be made up. Log-probabilities have to be the
    model's own (vLLM's --logprobs-mode raw_logprobs, its default). The default length is one token
    under causal_lm's: a server wants a place for the token that it generates.
    """

    VERSION: ClassVar[int] = 1

    tokenizer: str | None = Field(
        None,
        min_length=1,
        description="hub id or local folder of the served checkpoint; default: `model`",
    )
    revision: str | None = Field(
        None,
        description="hub commit, tag or branch of the tokenizer; default: the pinned "
        "one, else main",
    )
    max_length: int | None = Field(
        None,
        ge=1,
        description="longest prompt in tokens; default: the model's own window, less one",
    )
    server: Literal["vllm", "other"] = Field(
        "vllm", description="vllm: the six digits are asked for by token id; other: by text"
    )
    top_logprobs: int = Field(
        20, ge=6, description="tokens that a server of the kind `other` is asked for"
    )

    _reader: Lazy[Reader] = PrivateAttr(default_factory=Lazy)

    def fingerprint(self) -> Fingerprint:
        return {
            "backend": "openai",
            "version": self.VERSION,
            **self._reader.get(self._read).identity(),
            "served_model": self.model,
            "base_url": checked_url(self.base_url),
        }

    def rate(self, pair: tuple[str, str]) -> Rating:
        reader = self._reader.get(self._read)
        tokens = reader.tokens([pair])[0]
        if not tokens.ids:
            return Rating(
                math.nan,
                tokens.truncated_tokens,
                f"its prompt cannot be cut to {reader.max_length} tokens",
            )
        answer = self.post(
            "completions",
            {"prompt": tokens.ids, "max_tokens": 1, "temperature": 0, **self._asked(reader.digits)},
        )
        logprobs = _digits(_first_token(answer), reader.digits)
        return Rating(float(expected_score(np.array([logprobs]))[0]), tokens.truncated_tokens)

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        return self._reader.get(self._read).forecast(conversations)

    def _asked(self, digits: list[int]) -> dict[str, Any]:
        if self.server == "other":
            return {"logprobs": self.top_logprobs}
        return {"logprobs": 1, "logprob_token_ids": digits, "return_tokens_as_token_ids": True}

    def _read(self) -> Reader:
        return Reader.for_engine(
            self.kind, self.tokenizer or self.model, self.revision, self.max_length
        )


def _first_token(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Token -> log-probability at the first generated position."""
    try:
        first = answer["choices"][0]["logprobs"]["top_logprobs"][0]
    except (KeyError, IndexError, TypeError):
        first = None
    if not isinstance(first, Mapping):
        raise NoScore("the server gave no log-probabilities")
    return first


def _digits(first: Mapping[str, Any], ids: list[int]) -> list[float]:
    """Log-probabilities of "1" to "6", by id where the server names tokens so, else by text."""
    by_id = any(token.startswith("token_id:") for token in first)
    found = []
    for digit, identity in zip(DIGITS, ids, strict=True):
        value = first.get(f"token_id:{identity}" if by_id else digit)
        if value is None:
            raise NoScore(f"the server gave no log-probability for {digit!r}")
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not MASKED < value < math.inf
        ):
            raise NoScore(
                f"the server gave {value!r} as the log-probability of {digit!r}, expected "
                "that of a token it may generate"
            )
        found.append(float(value))
    return found
