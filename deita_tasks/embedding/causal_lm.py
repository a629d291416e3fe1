"""The paper's embedder: a decoder's last hidden state at the last token of the conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, PrivateAttr, field_validator

from deita_tasks.components import Fingerprint
from deita_tasks.conversations import Conversation, Turn
from deita_tasks.embedding.base import Embedder
from deita_tasks.embedding.texts import EmbeddedText, join_turns
from deita_tasks.embedding.vicuna import render_vicuna
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.checkpoint import Checkpoint, find_checkpoint
from deita_tasks.models.component import CausalLMComponent
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.tokenizer import FIRST_WORDS, Tokens, common_prefix, load_tokenizer
from deita_tasks.records import Forecast, ModelOutput

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class _TextEncoder(NamedTuple):
    """What is read before the weights: the checkpoint, and its tokenizer without truncation."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer


class CausalLMEmbedder(CausalLMComponent, Embedder):
    """The last layer's hidden state, after the final norm, at the last token (section 2.5).

    The text is the vicuna_v1.1 rendering, or with `text` the turns of one role, joined by newlines;
    its "answers" are the original's `only_answer`. As in
    the original's embedder/clm_embedder.py, the end of a text over `max_length` tokens is left out;
    here that is counted. Unlike there, no padding token or side and no CUDA device is needed.
    """

    VERSION: ClassVar[int] = 2  # of 1, last bits depended on the texts beside

    text: EmbeddedText = Field(
        "all", description="embed all turns, or the user's or the assistant's alone"
    )
    max_length: int = Field(
        2048, ge=2, description="longest text in tokens; the end of a longer one is left out"
    )

    long_texts: Literal["beginning"] = "beginning"

    _encoder: Lazy[_TextEncoder] = PrivateAttr(default_factory=Lazy)

    @field_validator("long_texts", mode="before")
    @classmethod
    def _check_long_texts(cls, value: object) -> object:
        """Return the option. Raises ValueError for "windows", which another embedder has."""
        if value == "windows":
            raise ValueError(
                "causal_lm embeds the beginning of long texts, as the original does; expected "
                "'beginning', or the embedder sentence_transformers"
            )
        return value

    @property
    def encoder(self) -> _TextEncoder:
        """The checkpoint and its tokenizer, loaded when first used."""
        return self._encoder.get(self._load_encoder)

    def fingerprint(self) -> Fingerprint:
        """Return checkpoint, template, limit and number type; loads no weights.

        `dtype` is what "auto" stands for on this machine, so hardware with another number type does
        not reuse the vectors.
        """
        return {
            "backend": "causal_lm",
            "version": self.VERSION,
            **self.encoder.checkpoint.identity(),
            "template": "vicuna_v1.1" if self.text == "all" else self.text,
            "max_length": self.max_length,
            **self.number_identity(),
        }

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """Return the tokens of each conversation that are read and left out."""
        tokens = self._tokenize(conversations)
        read = np.array([len(text.ids) for text in tokens], np.int64)
        truncated = np.array([text.truncated_tokens for text in tokens], np.int64)
        return Forecast(self.max_length, None, read, truncated)

    def compute(self, conversations: Sequence[Conversation]) -> ModelOutput:
        """Return the last states, float32 (n, d), not normalised; d is the decoder's hidden size.

        NaN and a problem for a text without a token, one that does not fit memory even alone, and a
        state that is not finite. Raises ModelError if the checkpoint cannot be used.
        """
        run = self._run_model(conversations, self._tokenize)
        problems = run.problems
        finite = np.isfinite(run.values).all(axis=1)
        for position in np.flatnonzero(~finite).tolist():
            if run.tokens[position].ids:
                problem = "the model gave a vector that is not finite"
            else:
                problem = "its text has no token"
            problems.setdefault(position, problem)
        run.values[list(problems)] = np.nan
        return ModelOutput(run.values, run.truncated_tokens(), problems)

    def _tokenize(self, conversations: Sequence[Conversation]) -> list[Tokens]:
        """Return the first `max_length` token ids of each text, and how many follow them."""
        texts = [self._render(conversation) for conversation in conversations]
        encodings = self.encoder.tokenizer.encode_batch_fast(texts)
        limit = self.max_length
        return [
            Tokens(encoding.ids[:limit], max(0, len(encoding.ids) - limit))
            for encoding in encodings
        ]

    def _render(self, conversation: Conversation) -> str:
        """Return the text that is embedded; "" if a conversation has no turn of the chosen role."""
        if self.text == "all":
            return render_vicuna(conversation)
        return join_turns(conversation, self.text, "\n")

    def _load_encoder(self) -> _TextEncoder:
        """Return the checkpoint and its tokenizer.

        Raises UsageError for a `max_length` that the model cannot read, ModelError for an unusable
        tokenizer.
        """
        checkpoint = find_checkpoint(self.model, self.revision)
        checkpoint.limit(self.max_length)
        return _TextEncoder(checkpoint, load_tokenizer(checkpoint))

    def _load_model(self) -> CausalLM:
        """Return the decoder without its head.

        Of whole conversations it computes the template's beginning once. This prefix leaves room
        for two tokens, so that every truncated text goes on after it.
        """
        checkpoint, tokenizer = self.encoder
        prefix: list[int] = []
        if self.text == "all":
            samples = [Conversation((Turn("user", word),)) for word in FIRST_WORDS]
            prefix = common_prefix(tokenizer, [render_vicuna(sample) for sample in samples])
        return self._load_causal_lm(checkpoint, prefix[: self.max_length - 2])
