"""Replies of chat models, each paid for once: a reply is in the store before anyone reads it.

<store>/replies/<two digits>/<digest>.json, named by what was asked: server, model, messages,
options and the number of the attempt.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pydantic import Field, JsonValue, NonNegativeInt

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, MissingFile, ModelError, UsageError
from deita_tasks.evolving.limits import RateLimit, Spending
from deita_tasks.presets import SERVER_ATTEMPTS, SERVER_CONCURRENCY, SERVER_KEY_ENV, SERVER_TIMEOUT
from deita_tasks.scoring.http_client import JSONObject, Server, check_url, lookup
from deita_tasks.strict_json import JSON, JsonRecord

BYTES_PER_TOKEN = 3  # about, over languages; for estimates before the server has counted
MESSAGE_OVERHEAD = 16  # tokens around a message in a chat template, about


class ChatOptions(JsonRecord):
    """A chat model behind an OpenAI-compatible server, and how to ask it."""

    url: str
    model: str = Field(min_length=1)
    api_key_env: str = SERVER_KEY_ENV
    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(1024, ge=1)
    concurrency: int = Field(SERVER_CONCURRENCY, ge=1)
    timeout: float = Field(SERVER_TIMEOUT, gt=0)
    attempts: int = Field(SERVER_ATTEMPTS, ge=1)

    def identity(self) -> dict[str, JsonValue]:
        """Return what a reply depends on beside the messages; no limits, no key."""
        return {
            "url": check_url(self.url),
            "model": self.model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }


class Reply(JsonRecord):
    """A model's reply. is_cut: it ended at `max_tokens`. Tokens as the server counts them."""

    text: str
    is_cut: bool = False
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt


class KeptReply(JsonRecord):
    """A reply in the store, with what was asked."""

    question: dict[str, JsonValue]
    reply: Reply


class Usage(NamedTuple):
    """What a model was asked for in a run, and what the store had already."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    reused: int


Message = Mapping[str, str]


class ChatModel:
    """A chat model whose replies are kept. Several threads may call `ask`.

    limit: of its server, shared by the models there.
    """

    def __init__(
        self, options: ChatOptions, store: str, spending: Spending, limit: RateLimit
    ) -> None:
        self.options = options
        self._store = store
        self._spending = spending
        self._limit = limit
        self._server = _connect(options)
        self._lock = threading.Lock()
        self._usage = Usage(0, 0, 0, 0)

    @property
    def usage(self) -> Usage:
        """What was asked for so far."""
        return self._usage

    def ask(self, messages: list[Message], attempt: int = 0) -> Reply:
        """Return the reply to `messages`: from the store, else from the server.

        attempt: another number is another question, so it gets another reply. Raises Refused if the
        server refuses this question, UsageError if the cap is reached, and whatever else
        `Server.post` raises.
        """
        question = _question(self.options, messages, attempt)
        uri = reply_uri(self._store, question)
        try:
            reply = storage.read_record(uri, KeptReply).reply
            self._count(Usage(0, 0, 0, 1))
            return reply
        except (MissingFile, DamagedArtifact):  # of a damaged reply nothing can be read
            pass
        reply = self._pay(messages)
        storage.write_record(uri, KeptReply(question=question, reply=reply))
        self._count(Usage(1, reply.prompt_tokens, reply.completion_tokens, 0))
        return reply

    def _pay(self, messages: list[Message]) -> Reply:
        """Return the server's reply, within the cap on tokens and the limits per minute.

        An estimate is set aside first, and replaced by what the reply took; by nothing if there is
        no reply. Only the last attempt is corrected: earlier ones failed and have no count.
        """
        options = self.options
        estimate = estimate_tokens(messages) + options.max_tokens
        self._spending.reserve(estimate)
        paid = 0
        try:
            body: JSONObject = {
                "model": options.model,
                "messages": [dict(message) for message in messages],
                "temperature": options.temperature,
                "max_tokens": options.max_tokens,
            }
            bookings = []
            answer = self._server.post(
                "chat/completions",
                body,
                before_attempt=lambda: bookings.append(self._limit.wait(estimate)),
            )
            reply = _read_reply(options, answer, messages)
            paid = reply.prompt_tokens + reply.completion_tokens
            self._limit.correct(bookings[-1], paid)
            return reply
        finally:
            self._spending.settle(estimate, paid)

    def _count(self, more: Usage) -> None:
        """Add to the usage; many threads ask at the same time."""
        with self._lock:
            counts = [old + new for old, new in zip(self._usage, more, strict=True)]
            self._usage = Usage(*counts)


Ask = Callable[[list[Message], int], Reply]


def _question(options: ChatOptions, messages: list[Message], attempt: int) -> dict[str, JsonValue]:
    """Return what a reply is kept under: the model and its options, the messages, the attempt.

    The key of the server is not in it.
    """
    shown: list[JsonValue] = [dict(message) for message in messages]
    return {**options.identity(), "messages": shown, "attempt": attempt}


def reply_uri(store: str, question: Mapping[str, JsonValue]) -> str:
    """Return where the reply to a question is kept: <store>/replies/<2 digits>/<digest>.json."""
    digest = storage.digest_of(dict(question))
    return storage.join(store, "replies", digest[:2], f"{digest}.json")


def estimate_tokens(messages: list[Message]) -> int:
    """Return about how many tokens messages have, from their bytes in UTF-8.

    The tokenizer of a server is not known. What the server counts replaces the estimate.
    """
    texts = [message["content"] for message in messages]
    return sum(len(text.encode()) // BYTES_PER_TOKEN + MESSAGE_OVERHEAD for text in texts)


def _read_reply(options: ChatOptions, answer: JSON, messages: list[Message]) -> Reply:
    """Return the reply in a server's answer; its tokens are estimated if the server counts none.

    Raises ModelError for an answer that is no chat completion.
    """
    message = lookup(answer, "choices", 0, "message")
    if not isinstance(message, Mapping):
        raise ModelError(
            f"{options.url}: the answer of {options.model!r} has no message; expected a chat "
            "completion"
        )
    content = message.get("content")
    text = content if isinstance(content, str) else ""
    counted = [lookup(answer, "usage", name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (number if type(number) is int else None for number in counted)
    own: Message = {"content": text}
    return Reply(
        text=text,
        is_cut=lookup(answer, "choices", 0, "finish_reason") == "length",
        prompt_tokens=estimate_tokens(messages) if prompt is None else prompt,
        completion_tokens=estimate_tokens([own]) if completion is None else completion,
    )


def _connect(options: ChatOptions) -> Server:
    """Return the server. Raises UsageError for a variable that is named and not there."""

    def key() -> str | None:
        """Return the key, read anew for each request; None if the variable is unset or blank."""
        return os.environ.get(options.api_key_env, "").strip() or None

    if key() is None and options.api_key_env != SERVER_KEY_ENV:
        raise UsageError(
            f"{options.api_key_env}: there is no such environment variable; set it to the key of "
            f"{options.url}"
        )
    return Server(
        check_url(options.url),
        key,
        timeout=options.timeout,
        attempts=options.attempts,
        concurrency=options.concurrency,
    )
