"""Pairs to a scorer's token ids; reads no weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pydantic import PrivateAttr

from deita_tasks.components import Fingerprint
from deita_tasks.conversations import Conversation
from deita_tasks.errors import UsageError
from deita_tasks.models.checkpoint import Checkpoint, find_checkpoint
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.tokenizer import FIRST_WORDS, Tokens, common_prefix, load_tokenizer
from deita_tasks.records import Forecast, ScoreKind
from deita_tasks.scoring.base import Scorer
from deita_tasks.scoring.prompts import TEMPLATES, render
from deita_tasks.scoring.tokens import find_digit_ids, forecast, tokenize

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class PromptEncoder(NamedTuple):
    """A checkpoint's tokenizer, the ids of the digits 1 to 6, and the longest prompt in tokens."""

    kind: ScoreKind
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    digits: list[int]
    max_length: int

    @classmethod
    def for_checkpoint(
        cls, kind: ScoreKind, checkpoint: Checkpoint, max_length: int
    ) -> PromptEncoder:
        """Return the encoder of a checkpoint.

        Raises UsageError for a length that leaves no room for a pair, ModelError for a checkpoint
        without a usable tokenizer, or whose tokenizer has no token for each digit.
        """
        tokenizer = load_tokenizer(checkpoint)
        digits = find_digit_ids(tokenizer, kind)
        template_length = len(tokenizer.encode(render(kind, "", "").text).ids)
        if max_length <= template_length:
            raise UsageError(
                f"max_length={max_length}: the {kind} prompt alone takes {template_length} tokens; "
                "set a greater max_length"
            )
        return cls(kind, checkpoint, tokenizer, digits, max_length)

    @classmethod
    def for_engine(
        cls, kind: ScoreKind, model: str, revision: str | None, max_length: int | None
    ) -> PromptEncoder:
        """Return the encoder of a checkpoint that an engine runs.

        The default length is one token under the model's window: the engine generates a token, and
        needs room for it. Raises what `for_checkpoint` raises, and UsageError if neither
        `max_length` nor a config.json gives a length.
        """
        checkpoint = find_checkpoint(model, revision)
        return cls.for_checkpoint(kind, checkpoint, max_length or _window(checkpoint) - 1)

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> list[Tokens]:
        """Return the token ids of the prompts for `pairs`, truncated to the limit.

        A prompt that cannot be truncated so far has none; `too_long_problem` says why.
        """
        prompts = [render(self.kind, *pair) for pair in pairs]
        return tokenize(self.tokenizer, prompts, self.max_length)

    def common_prefix(self) -> list[int]:
        """Return the token ids that prompts begin with.

        A few prompts begin otherwise: the first word may share a token with the template.
        """
        texts = [render(self.kind, word, word).text for word in FIRST_WORDS]
        return common_prefix(self.tokenizer, texts)

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """Return what the model would read of `conversations`; all but `windows` is known."""
        return forecast(self.tokenizer, self.kind, self.digits, self.max_length, conversations)

    def too_long_problem(self) -> str:
        """Return why a pair has no score if its prompt has no token ids."""
        return f"its prompt cannot be truncated to {self.max_length} tokens"

    def identity(self) -> Fingerprint:
        """Return the part of a scorer's fingerprint that is known here, that of its prompts."""
        return {
            "kind": self.kind,
            **self.checkpoint.identity(),
            "template": TEMPLATES[self.kind],
            "digit_ids": self.digits,
            "max_length": self.max_length,
        }


class PromptScorer(Scorer):
    """Base class of scorers that read pairs through the paper's prompts."""

    kind: ScoreKind

    _encoder: Lazy[PromptEncoder] = PrivateAttr(default_factory=Lazy)

    @property
    def encoder(self) -> PromptEncoder:
        """The prompts' encoder, loaded when first used."""
        return self._encoder.get(self._load_encoder)

    @abstractmethod
    def _load_encoder(self) -> PromptEncoder:
        """Return the prompts' encoder, from tokenizer and configuration alone."""

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """Return the tokens of each conversation's prompts, read and left out."""
        return self.encoder.forecast(conversations)


def _window(checkpoint: Checkpoint) -> int:
    """Return the model's window in tokens. Raises UsageError if no config.json names one."""
    if checkpoint.file("config.json") is None:
        raise UsageError(
            f"{checkpoint.location} has no config.json that names the model's window; set "
            "max_length"
        )
    return checkpoint.limit(None)
