"""Count the tokens of conversations under a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import PrivateAttr

from deita_tasks.components import Component, Fingerprint
from deita_tasks.conversations import Conversation, RowKey, parse_tools
from deita_tasks.models.chat import IGNORED, CannotRender, chat_turns, encode
from deita_tasks.models.chat_tokenizer import BaseName, Tokenization, load_tokenizer
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.lazy import Lazy
from deita_tasks.records import Forecast


class RowTokens(NamedTuple):
    """The tokens of a conversation under a chat template.

    tokens: all of them. before_answer: those before the first word of the assistant.
    """

    tokens: int
    before_answer: int


class TokenCounter(Component):
    """Counts the tokens of conversations as a training would read them.

    model, revision: whose tokenizer and chat template; chat_template: see `set_template`.
    """

    device: ClassVar[str] = "cpu"  # threads may not share a tokenizer
    VERSION: ClassVar[int] = 1  # raise it when the same conversation would get another count
    ROW_KEY: ClassVar[RowKey] = "id"  # templates show tools and calls too

    model: str
    revision: str | None = None
    chat_template: str | None = None

    _tokenization: Lazy[Tokenization] = PrivateAttr(default_factory=Lazy)
    _fingerprint: Lazy[Fingerprint] = PrivateAttr(default_factory=Lazy)

    def fingerprint(self) -> Fingerprint:
        """Return everything that can change a count: the tokenizer and the template, not its place.

        Raises UsageError or ModelError if there is none.
        """
        return self._fingerprint.get(self._make_fingerprint)

    def _make_fingerprint(self) -> Fingerprint:
        """Return the fingerprint, by the tokenizer's content: a copy elsewhere has the same.

        Only a tokenizer without a fast form is named by its checkpoint.
        """
        tokenizer = self.tokenization.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:  # without a fast tokenizer, its files
            identity = find_checkpoint(self.model, self.revision).identity()
        else:
            identity = {"tokenizer_sha256": sha256(backend.to_str().encode()).hexdigest()}
        return {
            "backend": "chat_template",
            "version": self.VERSION,
            **identity,
            "special_tokens": {
                name: str(token) for name, token in tokenizer.special_tokens_map.items()
            },
            "chat_template": str(tokenizer.chat_template),
        }

    def count(self, conversations: Sequence[Conversation]) -> list[RowTokens | str]:
        """Return the tokens of each conversation, or as text why the template cannot show it.

        Raises UsageError or ModelError if there is no tokenizer or no template.
        """
        return [self._count(conversation) for conversation in conversations]

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """Return how many tokens are counted of each conversation; 0 where there is no count.

        No model reads them: `window` and `truncated_tokens` stay None.
        """
        counts = self.count(conversations)
        tokens = [0 if isinstance(count, str) else count.tokens for count in counts]
        return Forecast(tokens=np.array(tokens, np.int64))

    def _count(self, conversation: Conversation) -> RowTokens | str:
        """Return the tokens of one conversation, or the reason why the template cannot show it."""
        tokenizer = self.tokenization.tokenizer
        try:
            encoded = encode(tokenizer, chat_turns(conversation), parse_tools(conversation.tools))
        except CannotRender as error:
            return str(error)
        is_answer = [label != IGNORED for label in encoded.labels]
        return RowTokens(len(encoded.labels), is_answer.index(True))

    @property
    def tokenization(self) -> Tokenization:
        """The tokenizer with its template. Raises UsageError or ModelError if there is none."""
        return self._tokenization.get(self._load)

    def _load(self) -> Tokenization:
        """Return the tokenizer with its template, as a training would load it.

        Raises UsageError for an unknown model, ModelError for one without a usable tokenizer or
        template.
        """
        base = BaseName(model=self.model, revision=self.revision, chat_template=self.chat_template)
        return load_tokenizer(base)


def load_counter(name: str, **options: Any) -> TokenCounter:
    """Return the TokenCounter with these options; its name is always chat_template."""
    return TokenCounter(**options)
