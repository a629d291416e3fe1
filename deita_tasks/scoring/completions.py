"""The paper's scorers behind an OpenAI-compatible server that returns log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from deita_tasks.components import Fingerprint
from deita_tasks.scoring.expected import expected_score
from deita_tasks.scoring.http_client import JSONObject, check_url, lookup, shorten
from deita_tasks.scoring.prompt_encoder import PromptEncoder, PromptScorer
from deita_tasks.scoring.served import NoScore, Rating, ServedScorer
from deita_tasks.scoring.tokens import DIGITS
from deita_tasks.strict_json import JSON

MASKED = -9999.0  # what vLLM writes for minus infinity, which JSON has no number for


class CompletionsScorer(PromptScorer, ServedScorer):
    """The expected score under a scorer checkpoint (section 2.3 and 2.4), by a completions server.

    The score comes from the log-probabilities of "1" to "6" as the first token of a completion. The
    prompt is sent as token ids: servers tokenize text in their own ways. From a `server` "vllm" the
    six are requested by id, and are exact. From "other" the `top_logprobs` most probable tokens are
    requested, and the digits among them are found by their text; if one is missing, the pair has a
    problem, since any probability would be made up.

    Log-probabilities must be the model's own (vLLM's --logprobs-mode raw_logprobs, its default).
    The default length is one token under causal_lm's: a server generates a token, and needs room
    for it.
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
        "vllm", description="vllm: request the six digits by token id; other: find them by text"
    )
    top_logprobs: int = Field(
        20, ge=6, description="tokens to request from a server of the kind `other`"
    )

    def fingerprint(self) -> Fingerprint:
        """Return prompt and tokenizer, and the model's name and server in place of weights.

        The server's weights cannot be read. `server` and `top_logprobs`, the way to request
        log-probabilities, are no part of it.
        """
        return {
            "backend": "openai",
            "version": self.VERSION,
            **self.encoder.identity(),
            "served_model": self.model,
            "base_url": check_url(self.base_url),
        }

    def rate(self, pair: tuple[str, str]) -> Rating:
        """Return the expected score of a pair, in [1, 6].

        NaN and a problem for a prompt that cannot be truncated to the limit, which is not sent.
        Raises NoScore if the answer does not have all six log-probabilities, and what `post`
        raises.
        """
        encoder = self.encoder
        prompt = encoder.tokenize([pair])[0]
        if not prompt.ids:
            return Rating(math.nan, prompt.truncated_tokens, encoder.too_long_problem())
        request: JSONObject = {"prompt": prompt.ids, "max_tokens": 1, "temperature": 0}
        answer = self.post("completions", {**request, **self._logprob_options(encoder.digits)})
        logprobs = _digit_logprobs(_first_token(answer), encoder.digits)
        score = float(expected_score(np.array([logprobs]))[0])
        return Rating(score, prompt.truncated_tokens)

    def _logprob_options(self, digits: list[int]) -> JSONObject:
        """Return the fields of a request that ask for log-probabilities.

        `digits`: the token ids of "1" to "6", which only vLLM takes; any other server is asked for
        the most probable tokens.
        """
        if self.server == "other":
            return {"logprobs": self.top_logprobs}
        return {"logprobs": 1, "logprob_token_ids": digits, "return_tokens_as_token_ids": True}

    def _load_encoder(self) -> PromptEncoder:
        """Return the encoder of `tokenizer`, or of `model` if the server names it by its hub id."""
        model = self.tokenizer or self.model
        return PromptEncoder.for_engine(self.kind, model, self.revision, self.max_length)


def _first_token(answer: JSON) -> Mapping[str, JSON]:
    """Return token -> log-probability in nats, at the first generated position.

    Raises NoScore if the answer has none, as from a server that was not asked for them.
    """
    first = lookup(answer, "choices", 0, "logprobs", "top_logprobs", 0)
    if not isinstance(first, Mapping):
        raise NoScore("the server gave no log-probabilities")
    return first


def _digit_logprobs(first: Mapping[str, JSON], digit_ids: Sequence[int]) -> list[float]:
    """Return the log-probabilities of "1" to "6".

    They are found by id if the server names tokens by id, else by text.
    """
    by_id = any(token.startswith("token_id:") for token in first)
    names = [f"token_id:{digit_id}" for digit_id in digit_ids] if by_id else list(DIGITS)
    return [
        _digit_logprob(digit, first.get(name)) for digit, name in zip(DIGITS, names, strict=True)
    ]


def _digit_logprob(digit: str, value: JSON) -> float:
    """Return a digit's log-probability, in nats.

    Raises NoScore for a missing one, for what is no number, and for MASKED: a token that the server
    may not generate says nothing about the score.
    """
    if value is None:
        raise NoScore(f"the server gave no log-probability for {digit!r}")
    is_bool = isinstance(value, bool)  # a subclass of int
    if is_bool or not isinstance(value, int | float) or not MASKED < value < -MASKED:
        raise NoScore(
            f"the server gave {shorten(repr(value))} as the log-probability of {digit!r}; expected "
            "that of a token that it may generate"
        )
    return float(value)
