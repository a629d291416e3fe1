"""The paper's scorers on vLLM, in this process (the extra `vllm`)."""

from __future__ import annotations

import gc
import importlib.util
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from deita_tasks.components import Fingerprint
from deita_tasks.errors import MissingExtra, ModelError, UsageError
from deita_tasks.models.hardware import Dtype, choose_dtype
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.prefetch import prefetch
from deita_tasks.models.stopping import may_stop
from deita_tasks.records import Conversation, Forecast, ModelOutput
from deita_tasks.scoring.base import Scorer
from deita_tasks.scoring.expected import expected_score
from deita_tasks.scoring.prompt_encoder import Reader
from deita_tasks.scoring.tokens import DIGITS, Tokens

log = logging.getLogger(__name__)


class VLLMScorer(Scorer):
    """Expected score from the log-probabilities of "1" to "6" right after the prompt (section 2.3
    and 2.4), by vLLM's offline engine.

    Token ids go in, from the same tokenizer as causal_lm's; the six raw log-probabilities come out
    by `logprob_token_ids`. The default length is one token under causal_lm's: the engine wants a
    place for the token that it generates.
    """

    VERSION: ClassVar[int] = 1
    device: ClassVar[str] = "cuda"

    model: str = Field(min_length=1, description="hub id or local folder")
    revision: str | None = Field(
        None, description="hub commit, tag or branch; default: the pinned one, else main"
    )
    max_length: int | None = Field(
        None,
        ge=1,
        description="longest prompt in tokens; default: the model's own window, less one",
    )
    dtype: Dtype = "auto"
    gpus: int = Field(
        1, ge=1, description="GPUs that one model is spread over (tensor parallelism)"
    )
    gpu_memory: float = Field(
        0.9, gt=0, le=1, description="share of a GPU's memory that the engine may take"
    )

    _reader: Lazy[Reader] = PrivateAttr(default_factory=Lazy)
    _engine: Lazy[Any] = PrivateAttr(default_factory=Lazy)

    @model_validator(mode="after")
    def _installed(self) -> Self:
        """Raises MissingExtra where vLLM is not installed: before anything is read."""
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtra("vllm", "vllm", "vllm")
        return self

    def fingerprint(self) -> Fingerprint:
        identity = self._reader.get(self._read).identity()
        return {
            "backend": "vllm",
            "version": self.VERSION,
            **identity,
            "dtype": choose_dtype(self.dtype, "auto"),
        }

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        reader = self._reader.get(self._read)
        tokens: list[Tokens] = []
        parts = []
        if pairs:
            self._engine.get(self._load)  # before any thread runs: the engine forks
        for piece in prefetch(pairs, reader.tokens):
            # the engine itself does not ask: without pieces a shard could not be stopped
            may_stop()
            tokens += piece
            parts.append(self._logprobs(piece, reader.digits))
        problems = {
            i: f"its prompt cannot be cut to {reader.max_length} tokens"
            for i, one in enumerate(tokens)
            if not one.ids
        }
        logprobs = np.concatenate(parts)
        scores = expected_score(logprobs)
        for i in np.flatnonzero(np.isnan(scores)).tolist():
            missing = [
                digit
                for digit, value in zip(DIGITS, logprobs[i], strict=True)
                if not math.isfinite(value)
            ]
            problems.setdefault(
                i, f"vLLM gave no finite log-probability for {', '.join(map(repr, missing))}"
            )
        return ModelOutput(
            scores, np.array([one.truncated_tokens for one in tokens], np.int32), problems
        )

    def _logprobs(
        self, tokens: Sequence[Tokens], digits: Sequence[int]
    ) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """(n, 6), natural logarithms; NaN where there is no prompt, or the engine told none."""
        from vllm import SamplingParams

        logprobs = np.full((len(tokens), len(DIGITS)), np.nan)
        asked = [i for i, one in enumerate(tokens) if one.ids]
        if asked:
            sampling = SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=list(digits))
            prompts = [{"prompt_token_ids": tokens[i].ids} for i in asked]
            requests = self._engine.get(self._load).generate(prompts, sampling, use_tqdm=False)
            for i, request in zip(asked, requests, strict=True):
                logprobs[i] = _digits(request, digits)
        return logprobs

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        return self._reader.get(self._read).forecast(conversations)

    def release(self) -> None:
        """Forgets the engine, which ends its processes; the next `measure` starts another."""
        self._engine.release()
        gc.collect()

    def _read(self) -> Reader:
        reader = Reader.for_engine(self.kind, self.model, self.revision, self.max_length)
        window = getattr(reader.checkpoint.config(), "max_position_embeddings", None)
        if window is not None and reader.max_length >= window:
            raise UsageError(
                f"max_length={reader.max_length}: vLLM generates a token, and {self.model} "
                f"has a window of {window}; ask for {window - 1}"
            )
        return reader

    def _load(self) -> Any:
        from vllm import LLM

        reader = self._reader.get(self._read)
        dtype = choose_dtype(self.dtype, "auto")
        try:
            engine = LLM(
                model=reader.checkpoint.location,
                revision=reader.checkpoint.revision,
                dtype=dtype,
                max_model_len=reader.max_length + 1,
                tensor_parallel_size=self.gpus,
                gpu_memory_utilization=self.gpu_memory,
                enable_prefix_caching=True,  # the template's beginning is the same in every prompt
                trust_remote_code=False,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"{self.model} cannot be loaded by vLLM: {error}") from error
        log.info("loaded %s by vLLM, %s, %d GPUs", reader.checkpoint.location, dtype, self.gpus)
        return engine


def _digits(request: Any, ids: Sequence[int]) -> list[float]:
    """The log-probabilities of the six ids at the first generated position; NaN for one that is not
    there.
    """
    positions = request.outputs[0].logprobs if request.outputs else None
    first: Mapping[int, Any] = positions[0] if positions else {}
    return [first[identity].logprob if identity in first else math.nan for identity in ids]
