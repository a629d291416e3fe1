"""The paper's scorers: a causal language model's distribution over the digits 1 to 6, right after a prompt that asks for a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field, PrivateAttr

from deita_tasks.errors import UsageError
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.checkpoint import Checkpoint, find_checkpoint
from deita_tasks.models.hardware import Dtype, choose_device, choose_dtype
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.records import Conversation, Forecast, Kind, Measured
from deita_tasks.scoring.base import Scorer
from deita_tasks.scoring.expected import expected_score
from deita_tasks.scoring.prompts import TEMPLATES, render
from deita_tasks.scoring.tokens import digit_ids, forecast, tokenize

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class _Reader(NamedTuple):
    """What turns pairs into token ids; ready without the model's weights."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    digits: list[int]
    max_length: int


class CausalLMScorer(Scorer):
    """Expected score under a scorer checkpoint (section 2.3 and 2.4; the original's scorer/base.py), transformers backend.

    Unlike the original: raw logits whatever generation_config.json says; digit ids from the tokenizer, each proved; long prompts cut in
    their content, and counted; no 3.0 where something fails. A response that is missing is scored as "", as there.
    """

    VERSION: ClassVar[int] = 1

    kind: Kind
    model: str = Field(min_length=1, description="hub id or local folder")
    revision: str | None = Field(None, description="hub commit, tag or branch; default: the pinned one, else main")
    max_length: int | None = Field(None, ge=1, description="longest prompt in tokens; default: the model's own window")
    dtype: Dtype = "auto"
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    batch_tokens: int | None = Field(None, ge=1, description="tokens in a batch, padding included; default: by device")
    allow_bin: bool = Field(False, description="read pytorch_model.bin where there is no safetensors file")

    _reader: Lazy[_Reader] = PrivateAttr(default_factory=Lazy)
    _model: Lazy[CausalLM] = PrivateAttr(default_factory=Lazy)

    def fingerprint(self) -> dict[str, Any]:
        reader = self._reader.get(self._read)
        return {
            "backend": "causal_lm",
            "version": self.VERSION,
            "kind": self.kind,
            **reader.checkpoint.identity(),
            "template": TEMPLATES[self.kind],
            "digit_ids": reader.digits,
            "max_length": reader.max_length,
            "dtype": choose_dtype(self.dtype, self.device),
        }

    def measure(self, pairs: Sequence[tuple[str, str]]) -> Measured:
        reader = self._reader.get(self._read)
        tokens = tokenize(reader.tokenizer, [render(self.kind, *pair) for pair in pairs], reader.max_length)
        model = self._model.get(self._load)
        hidden, too_much = model.last_hidden([t.ids for t in tokens], self.batch_tokens)
        scores = expected_score(model.logits(hidden).cpu().numpy())
        problems = {i: f"out of memory on {model.device} with its {len(tokens[i].ids)} tokens alone" for i in too_much}
        for i in np.flatnonzero(np.isnan(scores)):
            uncuttable = f"its prompt cannot be cut to {reader.max_length} tokens"
            problems.setdefault(int(i), "the model's logits for the digits are not finite" if tokens[i].ids else uncuttable)
        return Measured(scores, np.array([t.cut for t in tokens], np.int32), problems)

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        reader = self._reader.get(self._read)
        return forecast(reader.tokenizer, self.kind, reader.digits, reader.max_length, conversations)

    def release(self) -> None:
        """Forgets the loaded weights; the next `measure` loads them again."""
        self._model.release()

    def _read(self) -> _Reader:
        checkpoint = find_checkpoint(self.model, self.revision)
        tokenizer = load_tokenizer(checkpoint)
        reader = _Reader(checkpoint, tokenizer, digit_ids(tokenizer, self.kind), checkpoint.limit(self.max_length))
        least = len(tokenizer.encode(render(self.kind, "", "").text).ids)
        if reader.max_length <= least:
            raise UsageError(f"max_length={reader.max_length}: the {self.kind} prompt alone takes {least} tokens, ask for more")
        return reader

    def _load(self) -> CausalLM:
        reader = self._reader.get(self._read)
        device = choose_device(self.device)
        return CausalLM(
            reader.checkpoint,
            dtype=choose_dtype(self.dtype, device),
            device=device,
            allow_bin=self.allow_bin,
            head_ids=reader.digits,
        )
