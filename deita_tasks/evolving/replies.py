"""Replies of chat models, each paid for once: a reply is in the store before anyone reads it.

<store>/replies/<two digits>/<digest>.json, named by what was asked: model, messages, options and
the number of the attempt. The server's address counts only where the model's name says nothing.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pydantic import Field, JsonValue, NonNegativeInt

from deita_tasks import storage
from deita_tasks.errors import DamagedArtifact, MissingFile, ModelError, UsageError
from deita_tasks.evolving.limits import RateLimit, Spending
from deita_tasks.presets import SERVER_ATTEMPTS, SERVER_CONCURRENCY, SERVER_KEY_ENV, SERVER_TIMEOUT
from deita_tasks.scoring.http_client import JSONObject, Refused, Server, check_url, lookup
from deita_tasks.scoring.served import read_secret
from deita_tasks.strict_json import JSON, JsonRecord

BYTES_PER_TOKEN = 3  # about, over languages; for estimates before the server has counted
MESSAGE_OVERHEAD = 16  # tokens around a message in a chat template, about
PROBE = "Reply with the word yes."
# Names under which servers offer whatever model they have: the address tells such models apart.
GENERIC_NAMES = {"default", "model", "local", "local-model", "local_model", "llm", "chat"}


class ChatOptions(JsonRecord):
    """A chat model behind an OpenAI-compatible server, and how to ask it."""

    url: str
    model: str = Field(min_length=1)
    api_key_env: str = SERVER_KEY_ENV
    api_key_block: str | None = None
    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(1024, ge=1)
    concurrency: int = Field(SERVER_CONCURRENCY, ge=1)
    timeout: float = Field(SERVER_TIMEOUT, gt=0)
    attempts: int = Field(SERVER_ATTEMPTS, ge=1)

    def identity(self) -> dict[str, JsonValue]:
        """Return what a reply depends on beside the messages: a moved server is the same."""
        place: dict[str, JsonValue] = {}
        if self.model.lower() in GENERIC_NAMES:
            place["url"] = check_url(self.url)
        return {
            **place,
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


class NotKept(Exception):
    """The store has no reply to a question, and nothing is to be asked for."""


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
        self._asking: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._usage = Usage(0, 0, 0, 0)

    @property
    def usage(self) -> Usage:
        """What was asked for so far."""
        return self._usage

    def ask(self, messages: list[Message], attempt: int = 0) -> Reply:
        """Return the reply to `messages`: from the store, else from the server.

        attempt: another number is another question, so it gets another reply. Raises Refused if the
        server refuses this question, ModelError if it refuses every question, UsageError if the cap
        is reached, and whatever else `Server.post` raises.
        """
        question = _question(self.options, messages, attempt)
        uri = reply_uri(self._store, question)
        with self._lock:
            asking = self._asking[uri]
        with asking:  # two chains may come to the same question at the same time
            reply = _read_kept(uri)
            if reply is not None:
                self._count(Usage(0, 0, 0, 1))
                return reply
            reply = self._ask_server(messages)
            storage.write_record(uri, KeptReply(question=question, reply=reply))
        return reply

    def _ask_server(self, messages: list[Message]) -> Reply:
        try:
            return self._pay(messages)
        except Refused:
            if self._usage.requests == 0:
                self._check_by_probe()
            raise

    def _check_by_probe(self) -> None:
        """Raise ModelError if the server refuses a short question too: then no text is at fault."""
        try:
            self._pay([{"role": "user", "content": PROBE}])
        except Refused as error:
            options = self.options
            raise ModelError(
                f"{options.url}: the model {options.model!r} answers nothing, not even {PROBE!r}: "
                f"{error}"
            ) from None

    def _pay(self, messages: list[Message]) -> Reply:
        """Return the server's reply, within the cap on tokens and the limits per minute.

        The most that it can take is set aside first, and replaced by what the reply took; by
        nothing if there is no reply. Only the last attempt is corrected: earlier ones failed and
        have no count.
        """
        options = self.options
        estimate = estimate_tokens(messages) + options.max_tokens
        most = count_bytes(messages) + options.max_tokens  # no token is shorter than a byte
        self._spending.reserve(most)
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
            self._count(Usage(1, reply.prompt_tokens, reply.completion_tokens, 0))
            return reply
        finally:
            self._spending.settle(most, paid)

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


class KeptReplies:
    """A chat model's replies in the store. Several threads may call `ask`, which pays nothing."""

    def __init__(self, options: ChatOptions, store: str) -> None:
        self._options = options
        self._store = store

    def ask(self, messages: list[Message], attempt: int = 0) -> Reply:
        """Return the reply to `messages`. Raises NotKept if the store has none."""
        question = _question(self._options, messages, attempt)
        reply = _read_kept(reply_uri(self._store, question))
        if reply is None:
            raise NotKept
        return reply


def _read_kept(uri: str) -> Reply | None:
    try:
        return storage.read_record(uri, KeptReply).reply
    except (MissingFile, DamagedArtifact):  # of a damaged reply nothing can be read
        return None


def count_bytes(messages: list[Message]) -> int:
    """Return the bytes of messages, with what a chat template puts around them."""
    return sum(len(message["content"].encode()) + MESSAGE_OVERHEAD for message in messages)


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
    return Server(
        check_url(options.url),
        key_reader(options),
        timeout=options.timeout,
        attempts=options.attempts,
        concurrency=options.concurrency,
    )


def key_reader(options: ChatOptions) -> Callable[[], str | None]:
    """Return what gives the server's key, which is part of no option, reply, log or error.

    Raises UsageError for a Secret block or variable that is named and not there.
    """
    if options.api_key_block is not None:
        secret = read_secret(options.api_key_block)
        return lambda: secret

    def key() -> str | None:
        """Return the key, read anew for each request; None if the variable is unset or blank."""
        return os.environ.get(options.api_key_env, "").strip() or None

    if key() is None and options.api_key_env != SERVER_KEY_ENV:
        raise UsageError(
            f"{options.api_key_env}: there is no such environment variable; set it to the key of "
            f"{options.url}"
        )
    return key
