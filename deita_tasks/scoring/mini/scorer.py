"""Scorers that ship with the package and run on a CPU: fitted to open labels of difficulty and of
response quality.

Complexity is a judged opinion plus half a counted one: what a judge would say of the instruction,
by the judged instructions that it is near to in states of all-MiniLM-L6-v2 and in counts; and how
much is demanded in it, by counts alone. Each is bounded: a text unlike those it was fitted to must
not outweigh everything. Quality is a linear head on counts of the response beside its instruction;
no response scores exactly 1. Both are stretched so that the texts of the labelled data lie about
evenly between 1 and 6: neither drowns the other in a product. deita_tasks/training/mini.py fits
them; mini/weights/MODEL_CARD.md says to what, and how far they can be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from deita_tasks.components import Fingerprint
from deita_tasks.models.checkpoint import file_digest
from deita_tasks.models.hardware import Device
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.stopping import may_stop
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.presets import MINILM, MINILM_REVISION
from deita_tasks.records import Conversation, Forecast, ModelOutput, ScoreKind
from deita_tasks.scoring.base import Scorer
from deita_tasks.scoring.mini.encoder import LAYERS, WINDOW, MiniEncoder, minilm, tokenize
from deita_tasks.scoring.mini.features import instruction_features, response_features
from deita_tasks.scoring.mini.head import COUNTING, JUDGING, Head

WEIGHTS = Path(__file__).with_name("weights")
PIECE = 1024  # pairs


class MiniScorer(Scorer):
    """A score without a large model (see above). Only the beginning of a long instruction is read
    by the encoder, and what is cut is counted; the features see all of it.
    """

    VERSION: ClassVar[int] = 2
    PROBED: ClassVar[bool] = False  # small, soon loaded, and known to work

    kind: ScoreKind
    device: Device = "auto"
    batch_tokens: int | None = Field(
        None, ge=1, description="tokens in a batch, padding included; default: by device"
    )

    _head: Lazy[Head] = PrivateAttr(default_factory=Lazy)
    _encoder: Lazy[MiniEncoder] = PrivateAttr(default_factory=Lazy)

    def fingerprint(self) -> Fingerprint:
        head: Fingerprint = {
            "backend": "mini",
            "version": self.VERSION,
            "kind": self.kind,
            "weights_sha256": file_digest(self._weights),
            **COUNTING,
        }
        if self.kind == "quality":
            return head
        encoder: Fingerprint = {
            "model": MINILM,
            "revision": MINILM_REVISION,
            "layers": list(LAYERS),
            "max_length": WINDOW,
            "dtype": "float32",
        }
        return {**head, **JUDGING, **encoder}

    @property
    def works_on_device(self) -> bool:
        """Whether `device` is used at all: quality only counts, and must not hold a GPU that others
        wait for.
        """
        return self.kind == "complexity"

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        head = self._head.get(lambda: Head.load(self._weights))
        if self.kind == "quality":
            scores = self._scores(head, pairs, None)
            scores[[not response.strip() for _, response in pairs]] = 1.0
            return ModelOutput(scores, np.zeros(len(pairs), np.int32))
        encoder = self._encoder.get(lambda: MiniEncoder(self.device))
        states = encoder.states([instruction for instruction, _ in pairs], self.batch_tokens)
        return ModelOutput(
            self._scores(head, pairs, states.values), states.truncated_tokens, states.problems
        )

    def _scores(
        self, head: Head, pairs: Sequence[tuple[str, str]], states: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """(n,), PIECE pairs at a time: what is computed of them takes about 20 KB a pair."""
        scores = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs), PIECE):
            piece = slice(start, start + PIECE)
            x = head.standardise([self._features(*pair) for pair in pairs[piece]])
            scores[piece] = head.score(head.total(x, None if states is None else states[piece]))
        return scores

    def _features(self, instruction: str, response: str) -> dict[str, float]:
        may_stop()
        return (
            response_features(instruction, response)
            if self.kind == "quality"
            else instruction_features(instruction)
        )

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        if self.kind == "quality":
            return Forecast()
        tokenizer = load_tokenizer(minilm())
        read, cut = np.zeros(len(conversations), np.int64), np.zeros(len(conversations), np.int64)
        for i, one in enumerate(conversations):
            ids, over = tokenize(tokenizer, [pair.instruction for pair in one.pairs])
            read[i], cut[i] = sum(map(len, ids)), over.sum()
        return Forecast(WINDOW, None, read, cut)

    def release(self) -> None:
        """Forgets the loaded model; the next `measure` loads it again."""
        self._encoder.release()

    @property
    def _weights(self) -> Path:
        return WEIGHTS / f"{self.kind}.safetensors"
