"""The paper's scorers on vLLM, in this process."""

from __future__ import annotations

import gc
import importlib.util
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, model_validator

from deita_tasks.components import Fingerprint
from deita_tasks.errors import ModelError, UsageError
from deita_tasks.models.batch_progress import report_share
from deita_tasks.models.hardware import Dtype, choose_dtype
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.prefetch import prefetch
from deita_tasks.models.stopping import raise_if_stopped
from deita_tasks.models.tokenizer import Tokens
from deita_tasks.records import ModelOutput
from deita_tasks.scoring.expected import expected_score
from deita_tasks.scoring.prompt_encoder import PromptEncoder, PromptScorer
from deita_tasks.scoring.tokens import DIGITS

log = logging.getLogger(__name__)


class VLLMScorer(PromptScorer):
    """The expected score under a scorer checkpoint (section 2.3 and 2.4), by vLLM's offline engine.

    The engine gets the token ids of causal_lm's tokenizer, and returns the raw log-probabilities of
    "1" to "6" right after the prompt (`logprob_token_ids`). The default length is one token under
    causal_lm's: the engine generates a token, and needs room for it.
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
    gpus: int = Field(1, ge=1, description="GPUs per model (tensor parallelism)")
    gpu_memory: float = Field(
        0.9, gt=0, le=1, description="share of a GPU's memory that the engine may take"
    )

    _engine: Lazy[Any] = PrivateAttr(default_factory=Lazy)

    @model_validator(mode="after")
    def _check_installed(self) -> Self:
        """Raise UsageError if vLLM is not installed, before anything is read."""
        if importlib.util.find_spec("vllm") is None:
            raise UsageError(
                "the scorer 'vllm' needs the package vllm, which cannot be installed beside "
                "Prefect: give vLLM an environment of its own, and score through its server with "
                "the scorer 'openai' (docs/how-to/vllm-server.md)"
            )
        return self

    def fingerprint(self) -> Fingerprint:
        """Return prompt, tokenizer, checkpoint and number type; starts no engine.

        `gpus` and `gpu_memory` are left out: they must not change a score.
        """
        return {
            "backend": "vllm",
            "version": self.VERSION,
            **self.encoder.identity(),
            "dtype": choose_dtype(self.dtype, "auto"),
        }

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        """Return the expected scores, float32 (n,) in [1, 6].

        NaN and a problem for a prompt that cannot be truncated to the limit, and for a digit
        without a finite log-probability. Raises ModelError if the engine cannot load the model.
        """
        encoder = self.encoder
        tokens: list[Tokens] = []
        parts: list[NDArray[np.float64]] = []
        if pairs:
            self._engine.get(self._load_engine)  # before any thread starts: the engine forks
        for piece in prefetch(pairs, encoder.tokenize):
            # the engine itself cannot be stopped, so a shard is stopped between pieces
            raise_if_stopped()
            tokens += piece
            parts.append(self._logprobs(piece, encoder.digits))
            report_share(len(tokens), len(pairs))
        logprobs = np.concatenate(parts)
        scores = expected_score(logprobs)
        problems: dict[int, str] = {}
        for position in np.flatnonzero(np.isnan(scores)).tolist():
            if tokens[position].ids:
                problems[position] = _missing_problem(logprobs[position])
            else:
                problems[position] = encoder.too_long_problem()
        truncated = np.array([prompt.truncated_tokens for prompt in tokens], np.int32)
        return ModelOutput(scores, truncated, problems)

    def _logprobs(self, tokens: Sequence[Tokens], digits: Sequence[int]) -> NDArray[np.float64]:
        """Return natural log-probabilities of the digits, (n, 6).

        NaN for an empty prompt, and for a digit that the engine did not return.
        """
        from vllm import SamplingParams

        logprobs = np.full((len(tokens), len(DIGITS)), np.nan)
        positions = [position for position, prompt in enumerate(tokens) if prompt.ids]
        if not positions:
            return logprobs
        sampling = SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=list(digits))
        prompts = [{"prompt_token_ids": tokens[position].ids} for position in positions]
        engine = self._engine.get(self._load_engine)
        requests = engine.generate(prompts, sampling, use_tqdm=False)
        for position, request in zip(positions, requests, strict=True):
            logprobs[position] = _digit_logprobs(request, digits)
        return logprobs

    def release(self) -> None:
        """Forget the engine, which ends its processes; the next `compute` starts another."""
        self._engine.release()
        gc.collect()

    def _load_encoder(self) -> PromptEncoder:
        """Return the prompts' encoder.

        Raises UsageError for a length that leaves no room for a token.
        """
        encoder = PromptEncoder.for_engine(self.kind, self.model, self.revision, self.max_length)
        window = getattr(encoder.checkpoint.config(), "max_position_embeddings", None)
        if window is not None and encoder.max_length >= window:
            raise UsageError(
                f"max_length={encoder.max_length}: vLLM generates a token, and {self.model} has a "
                f"window of {window}; set max_length to {window - 1} or less"
            )
        return encoder

    def _load_engine(self) -> Any:
        """Start vLLM's engine and return it. Raises ModelError if it cannot load the checkpoint.

        Its window is one token over the longest prompt, for the token that it generates.
        """
        from vllm import LLM

        checkpoint = self.encoder.checkpoint
        dtype = choose_dtype(self.dtype, "auto")
        try:
            engine = LLM(
                model=checkpoint.location,
                revision=checkpoint.revision,
                dtype=dtype,
                max_model_len=self.encoder.max_length + 1,
                tensor_parallel_size=self.gpus,
                gpu_memory_utilization=self.gpu_memory,
                enable_prefix_caching=True,  # every prompt begins with the same template
                trust_remote_code=False,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"vLLM cannot load {self.model}: {error}") from error
        log.info("loaded %s by vLLM, %s, %d GPUs", checkpoint.location, dtype, self.gpus)
        return engine


def _missing_problem(logprobs: NDArray[np.float64]) -> str:
    """Return why a pair has no score if some of the six log-probabilities are not finite."""
    missing = [
        repr(digit)
        for digit, logprob in zip(DIGITS, logprobs, strict=True)
        if not math.isfinite(logprob)
    ]
    return f"vLLM gave no finite log-probability for {', '.join(missing)}"


def _digit_logprobs(request: Any, digits: Sequence[int]) -> list[float]:
    """Return the six log-probabilities at the first generated position; NaN for a missing one."""
    positions = request.outputs[0].logprobs if request.outputs else None
    if not positions:
        return [math.nan] * len(digits)
    first: Mapping[int, Any] = positions[0]
    return [first[digit].logprob if digit in first else math.nan for digit in digits]
