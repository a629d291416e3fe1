"""The paper's scorers: a causal language model's distribution over the digits 1 to 6, right after a
prompt that asks for a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from deita_tasks.components import Fingerprint
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.component import CausalLMComponent
from deita_tasks.models.hardware import choose_dtype
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.prefetch import prefetch
from deita_tasks.records import Conversation, Forecast, ModelOutput, ScoreKind
from deita_tasks.scoring.base import Scorer
from deita_tasks.scoring.expected import expected_score
from deita_tasks.scoring.prompt_encoder import Reader
from deita_tasks.scoring.tokens import DIGITS, Tokens


class CausalLMScorer(CausalLMComponent, Scorer):
    """Expected score under a scorer checkpoint (section 2.3 and 2.4; the original's
    scorer/base.py), transformers backend.

    Unlike the original: raw logits whatever generation_config.json says; digit ids from the
    tokenizer, each proved; long prompts cut in their content, and counted; no 3.0 where something
    fails. A response that is missing is scored as "", as there.
    """

    VERSION: ClassVar[int] = 1

    kind: ScoreKind
    max_length: int | None = Field(
        None, ge=1, description="longest prompt in tokens; default: the model's own window"
    )

    _reader: Lazy[Reader] = PrivateAttr(default_factory=Lazy)

    def fingerprint(self) -> Fingerprint:
        identity = self._reader.get(self._read).identity()
        return {
            "backend": "causal_lm",
            "version": self.VERSION,
            **identity,
            "dtype": choose_dtype(self.dtype, self.device),
        }

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        reader = self._reader.get(self._read)
        model = self._model.get(self._load)
        tokens: list[Tokens] = []
        logits = np.empty((len(pairs), len(DIGITS)), np.float32)
        problems: dict[int, str] = {}
        for piece in prefetch(pairs, reader.tokens):
            start = len(tokens)
            tokens += piece
            hidden, too_much = model.last_hidden([one.ids for one in piece], self.batch_tokens)
            logits[start : len(tokens)] = model.logits(hidden).cpu().numpy()
            problems |= {
                start
                + i: f"out of memory on {model.device} with its {len(piece[i].ids)} tokens alone"
                for i in too_much
            }
        scores = expected_score(logits)
        for i in np.flatnonzero(np.isnan(scores)):
            uncuttable = f"its prompt cannot be cut to {reader.max_length} tokens"
            problems.setdefault(
                int(i),
                "the model's logits for the digits are not finite" if tokens[i].ids else uncuttable,
            )
        return ModelOutput(
            scores, np.array([one.truncated_tokens for one in tokens], np.int32), problems
        )

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        return self._reader.get(self._read).forecast(conversations)

    def _read(self) -> Reader:
        checkpoint = find_checkpoint(self.model, self.revision)
        return Reader.of(self.kind, checkpoint, checkpoint.limit(self.max_length))

    def _load(self) -> CausalLM:
        reader = self._reader.get(self._read)
        return self._load_model(reader.checkpoint, reader.prefix(), reader.digits)
