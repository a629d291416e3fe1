"""Scorers that ship with the package and run on a CPU.

They were fitted to open labels of difficulty and of response quality. Both scores are stretched so
that the texts of the labelled data lie about evenly between 1 and 6: neither drowns the other in a
product.

Complexity is a judged opinion plus half a counted one. The judged opinion is what a judge would say
of the instruction, from the judged instructions nearest to it in states of all-MiniLM-L6-v2 and in
counts. The counted opinion is how much the instruction demands, from counts alone. Each is bounded:
a text unlike those it was fitted to must not outweigh everything. Quality is a linear head on
counts of the response beside its instruction; an empty response scores exactly 1.

fitting/mini.py, beside the package, fits them. mini/weights/MODEL_CARD.md says to what, and how far
they can be trusted. With `head` the scorer reads weights that deita_tasks/training fitted to scores
of the user's judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from deita_tasks.components import Fingerprint
from deita_tasks.conversations import Conversation
from deita_tasks.models.hardware import BatchTokens, Device, Dtype, choose_dtype
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.stopping import raise_if_stopped
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.presets import MINILM, MINILM_REVISION
from deita_tasks.records import Forecast, ModelOutput, ScoreKind
from deita_tasks.scoring.base import Scorer
from deita_tasks.scoring.mini.encoder import (
    LAYERS,
    WINDOW,
    MiniEncoder,
    minilm_checkpoint,
    tokenize,
)
from deita_tasks.scoring.mini.features import instruction_features, response_features
from deita_tasks.scoring.mini.head import COUNTED_CONSTANTS, JUDGED_CONSTANTS
from deita_tasks.scoring.mini.head_file import HeadFile, read_head

WEIGHTS = Path(__file__).with_name("weights")
PIECE = 1024  # pairs; computing them takes about 20 KB each


class MiniScorer(Scorer):
    """A score without a large model, see the module.

    The encoder reads only the beginning of a long instruction, and the tokens left out are counted;
    the features read all of it. On a CPU a score is the same to the bit whatever its batch.
    """

    VERSION: ClassVar[dict[ScoreKind, int]] = {"complexity": 3, "quality": 2}
    PROBED: ClassVar[bool] = False  # small, quickly loaded, and known to work

    kind: ScoreKind
    device: Device = "auto"
    batch_tokens: BatchTokens = None
    dtype: Dtype = "float32"
    head: str | None = Field(
        None, description="folder with a head of your own, local or on S3; None: the packaged one"
    )

    _head: Lazy[HeadFile] = PrivateAttr(default_factory=Lazy)
    _encoder: Lazy[MiniEncoder] = PrivateAttr(default_factory=Lazy)

    @property
    def languages(self) -> tuple[str, ...]:
        """English for the packaged heads, whose labels are English; () for another head."""
        return ("en",) if self.head is None else ()  # nobody said what a head of one's own reads

    def fingerprint(self) -> Fingerprint:
        """Return the digest of the head's file and the constants beside its weights.

        For complexity also the encoder with its number type; quality has no model. Raises what
        `read_head` raises.
        """
        head: Fingerprint = {
            "backend": "mini",
            "version": self.VERSION[self.kind],
            "kind": self.kind,
            "weights_sha256": self._head.get(self._load_head).sha256,
            **COUNTED_CONSTANTS,
        }
        if self.kind == "quality":
            return head
        encoder: Fingerprint = {
            "model": MINILM,
            "revision": MINILM_REVISION,
            "layers": list(LAYERS),
            "max_length": WINDOW,
            "dtype": self._number_type,
        }
        return {**head, **JUDGED_CONSTANTS, **encoder}

    @property
    def works_on_device(self) -> bool:
        """Whether `device` is used at all.

        Quality only counts words, and must not hold a GPU that others wait for.
        """
        return self.kind == "complexity"

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        """Return the scores of pairs, float32 (n,) in [1, 6].

        Quality has no problems; an empty response scores exactly 1. For complexity, NaN and a
        problem for an instruction that does not fit memory even alone. Raises ModelError if
        all-MiniLM-L6-v2 is not installed.
        """
        if self.kind == "quality":
            scores = self._scores(pairs, None)
            scores[[not response.strip() for _, response in pairs]] = 1.0
            return ModelOutput(scores, np.zeros(len(pairs), np.int32))
        encoder = self._encoder.get(self._load_encoder)
        states = encoder.states([instruction for instruction, _ in pairs], self.batch_tokens)
        scores = self._scores(pairs, states.values)
        return ModelOutput(scores, states.truncated_tokens, states.problems)

    def _scores(
        self, pairs: Sequence[tuple[str, str]], states: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Return the scores of n pairs, (n,); `states`: (n, s), for complexity alone."""
        head = self._head.get(self._load_head).head
        scores = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs), PIECE):
            piece = slice(start, start + PIECE)
            features = head.standardise([self._features(*pair) for pair in pairs[piece]])
            total = head.total(features, None if states is None else states[piece])
            scores[piece] = head.score(total)
        return scores

    def _features(self, instruction: str, response: str) -> dict[str, float]:
        """Return the features of the text that is scored, by name; the work can be stopped here."""
        raise_if_stopped()
        if self.kind == "quality":
            return response_features(instruction, response)
        return instruction_features(instruction)

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """Return the tokens of the instructions, up to WINDOW of each; nothing for quality."""
        if self.kind == "quality":
            return Forecast()
        tokenizer = load_tokenizer(minilm_checkpoint())
        read = np.zeros(len(conversations), np.int64)
        truncated = np.zeros(len(conversations), np.int64)
        for row, conversation in enumerate(conversations):
            tokens = tokenize(tokenizer, [pair.instruction for pair in conversation.pairs])
            read[row] = sum(len(text.ids) for text in tokens)
            truncated[row] = sum(text.truncated_tokens for text in tokens)
        return Forecast(WINDOW, None, read, truncated)

    def release(self) -> None:
        """Forget the loaded model; the next `compute` loads it again."""
        self._encoder.release()

    def _load_head(self) -> HeadFile:
        """Return the head in the folder `head`, or the packaged one.

        Raises what `read_head` raises.
        """
        return read_head(self.head or str(WEIGHTS), self.kind)

    def _load_encoder(self) -> MiniEncoder:
        """Return the encoder on `device`, which may be a CUDA device.

        Raises UsageError if that is not there, ModelError if all-MiniLM-L6-v2 is not installed.
        """
        return MiniEncoder(self.device, self._number_type)

    @property
    def _number_type(self) -> str:
        """The number type that `dtype` stands for on `device`."""
        return choose_dtype(self.dtype, self.device)
