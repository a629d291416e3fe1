"""The paper's embedder: a decoder's last hidden state at the last token of the whole conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from pydantic import Field, PrivateAttr

from deita_tasks.components import Fingerprint
from deita_tasks.embedding.base import Embedder
from deita_tasks.embedding.vicuna import answers, vicuna
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.checkpoint import Checkpoint, find_checkpoint
from deita_tasks.models.component import CausalLMComponent
from deita_tasks.models.hardware import choose_dtype
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.prefetch import prefetch
from deita_tasks.models.tokenizer import common_beginning, load_tokenizer
from deita_tasks.records import Conversation, Forecast, ModelOutput, Turn

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class _Reader(NamedTuple):
    checkpoint: Checkpoint
    tokenizer: Tokenizer


class CausalLMEmbedder(CausalLMComponent, Embedder):
    """Last layer's hidden state, after the final norm, at the last real token (section 2.5; the
    original's embedder/clm_embedder.py).

    The text is the vicuna_v1.1 rendering, or with `only_answer` the assistant's turns alone; over
    `max_length` tokens its end is left out, as in the original, and counted. Unlike there, no
    padding token or side and no CUDA device is needed.
    """

    VERSION: ClassVar[int] = 1

    only_answer: bool = Field(
        False, description="embed the assistant's turns alone, joined by newlines"
    )
    max_length: int = Field(
        2048, ge=2, description="longest text in tokens; the end of a longer one is left out"
    )

    _reader: Lazy[_Reader] = PrivateAttr(default_factory=Lazy)

    def fingerprint(self) -> Fingerprint:
        return {
            "backend": "causal_lm",
            "version": self.VERSION,
            **self._reader.get(self._read).checkpoint.identity(),
            "template": "answers" if self.only_answer else "vicuna_v1.1",
            "max_length": self.max_length,
            "dtype": choose_dtype(self.dtype, self.device),
        }

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        whole = np.array([len(ids) for ids in self._tokens(conversations)], np.int64)
        return Forecast(
            self.max_length,
            None,
            np.minimum(whole, self.max_length),
            np.maximum(whole - self.max_length, 0),
        )

    def compute(self, conversations: Sequence[Conversation]) -> ModelOutput:
        model = self._model.get(self._load)
        whole: list[list[int]] = []
        vectors = np.empty((len(conversations), model.base.config.hidden_size), np.float32)
        problems: dict[int, str] = {}
        for piece in prefetch(conversations, self._tokens):
            start = len(whole)
            whole += piece
            hidden, too_much = model.last_hidden(
                [ids[: self.max_length] for ids in piece], self.batch_tokens
            )
            vectors[start : len(whole)] = hidden.cpu().numpy()
            problems |= {
                start + i: f"out of memory on {model.device} with its {len(piece[i])} tokens alone"
                for i in too_much
            }
        for i in np.flatnonzero(~np.isfinite(vectors).all(axis=1)):
            problems.setdefault(
                int(i),
                "the model gave a vector that is not finite"
                if whole[i]
                else "its text has no token",
            )
        vectors[list(problems)] = np.nan
        return ModelOutput(
            vectors,
            np.array([max(0, len(ids) - self.max_length) for ids in whole], np.int32),
            problems,
        )

    def _tokens(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        """Token ids of each whole conversation."""
        render = answers if self.only_answer else vicuna
        tokenizer = self._reader.get(self._read).tokenizer
        return [
            encoding.ids
            for encoding in tokenizer.encode_batch_fast([render(one) for one in conversations])
        ]

    def _read(self) -> _Reader:
        checkpoint = find_checkpoint(self.model, self.revision)
        checkpoint.limit(self.max_length)
        return _Reader(checkpoint, load_tokenizer(checkpoint))

    def _load(self) -> CausalLM:
        reader = self._reader.get(self._read)
        texts = [
            vicuna(Conversation((Turn("user", word),))) for word in ("Write", "how", "1", "「")
        ]
        prefix = [] if self.only_answer else common_beginning(reader.tokenizer, texts)
        return self._load_model(reader.checkpoint, prefix[: self.max_length - 2])
