"""What turns pairs into a scorer's token ids; no weights are read here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from deita_tasks.errors import UsageError
from deita_tasks.models.checkpoint import Checkpoint, find_checkpoint
from deita_tasks.models.tokenizer import common_beginning, load_tokenizer
from deita_tasks.records import Conversation, Forecast, ScoreKind
from deita_tasks.scoring.prompts import TEMPLATES, render
from deita_tasks.scoring.tokens import Tokens, digit_ids, forecast, tokenize

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Reader(NamedTuple):
    """A checkpoint's tokenizer, the ids of its digits, and the longest prompt in tokens."""

    kind: ScoreKind
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    digits: list[int]
    max_length: int

    @classmethod
    def of(cls, kind: ScoreKind, checkpoint: Checkpoint, max_length: int) -> Reader:
        """The reader for a checkpoint. Raises UsageError for a length that leaves no room for a
        pair.
        """
        tokenizer = load_tokenizer(checkpoint)
        digits = digit_ids(tokenizer, kind)
        least = len(tokenizer.encode(render(kind, "", "").text).ids)
        if max_length <= least:
            raise UsageError(
                f"max_length={max_length}: the {kind} prompt alone takes {least} "
                "tokens, ask for more"
            )
        return cls(kind, checkpoint, tokenizer, digits, max_length)

    @classmethod
    def for_engine(
        cls, kind: ScoreKind, model: str, revision: str | None, max_length: int | None
    ) -> Reader:
        """The reader for a checkpoint that an engine runs. Its default length is one under the
        model's window: an engine generates, and wants a place for the token.
        """
        checkpoint = find_checkpoint(model, revision)
        return cls.of(kind, checkpoint, max_length or _window(checkpoint) - 1)

    def tokens(self, pairs: Sequence[tuple[str, str]]) -> list[Tokens]:
        """Token ids of the prompts for `pairs`, cut to the limit."""
        return tokenize(
            self.tokenizer, [render(self.kind, *pair) for pair in pairs], self.max_length
        )

    def prefix(self) -> list[int]:
        """The token ids that prompts begin with, but for the few whose first word runs into the
        template.
        """
        return common_beginning(
            self.tokenizer,
            [render(self.kind, word, word).text for word in ("Write", "how", "1", "「")],
        )

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """What the model would read of `conversations`."""
        return forecast(self.tokenizer, self.kind, self.digits, self.max_length, conversations)

    def identity(self) -> dict[str, Any]:
        """What of a score's fingerprint is known here."""
        return {
            "kind": self.kind,
            **self.checkpoint.identity(),
            "template": TEMPLATES[self.kind],
            "digit_ids": self.digits,
            "max_length": self.max_length,
        }


def _window(checkpoint: Checkpoint) -> int:
    if checkpoint.file("config.json") is None:
        raise UsageError(
            f"{checkpoint.location} has no config.json that names the model's window: "
            "give max_length"
        )
    return checkpoint.limit(None)
