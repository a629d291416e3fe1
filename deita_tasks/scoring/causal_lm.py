"""The paper's scorers on transformers.

A causal language model's distribution over the digits 1 to 6, right after a prompt that asks for a
score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from deita_tasks.components import Fingerprint
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.component import CausalLMComponent
from deita_tasks.records import ModelOutput, ScoreKind
from deita_tasks.scoring.expected import expected_score
from deita_tasks.scoring.prompt_encoder import PromptEncoder, PromptScorer

if TYPE_CHECKING:
    import torch


class CausalLMScorer(CausalLMComponent, PromptScorer):
    """The expected score under a scorer checkpoint (section 2.3 and 2.4), by transformers.

    Differs from the original's scorer/base.py: raw logits whatever generation_config.json says;
    digit ids from the tokenizer, each checked; long prompts truncated in their content, and
    counted; no 3.0 if something fails. As there, a missing response is scored as "".
    """

    VERSION: ClassVar[int] = 2  # of 1, last bits depended on the texts beside

    kind: ScoreKind
    max_length: int | None = Field(
        None, ge=1, description="longest prompt in tokens; default: the model's own window"
    )

    def fingerprint(self) -> Fingerprint:
        """Return prompt, tokenizer, checkpoint and number type; loads no weights.

        `dtype` is what "auto" stands for on this machine, so hardware with another number type does
        not reuse the scores.
        """
        return {
            "backend": "causal_lm",
            "version": self.VERSION,
            **self.encoder.identity(),
            **self.number_identity(),
        }

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        """Return the expected scores, float32 (n,) in [1, 6].

        NaN and a problem for a pair whose prompt cannot be truncated to the limit, that does not
        fit memory even alone, or whose logits are not finite. Raises ModelError if the checkpoint
        cannot be used.
        """
        encoder = self.encoder
        run = self._run_model(pairs, encoder.tokenize)
        scores = expected_score(run.values)
        problems = run.problems
        for position in np.flatnonzero(np.isnan(scores)).tolist():
            if run.tokens[position].ids:
                problem = "the model's logits for the digits are not finite"
            else:
                problem = encoder.too_long_problem()
            problems.setdefault(position, problem)
        return ModelOutput(scores, run.truncated_tokens(), problems)

    def _read_states(self, model: CausalLM, states: torch.Tensor) -> torch.Tensor:
        """Return the raw logits of "1" to "6", float32 (n, 6), from last states (n, d)."""
        return model.logits(states)

    def _load_encoder(self) -> PromptEncoder:
        """Return the prompts' encoder for the checkpoint, with its window as the default length.

        Raises UsageError for a length that the model cannot read, ModelError for an unusable
        tokenizer.
        """
        checkpoint = find_checkpoint(self.model, self.revision)
        limit = checkpoint.limit(self.max_length)
        return PromptEncoder.for_checkpoint(self.kind, checkpoint, limit)

    def _load_model(self) -> CausalLM:
        """Return the decoder with the six rows of its head that the digits have.

        The template's beginning is computed once, as every prompt has it.
        """
        encoder = self.encoder
        return self._load_causal_lm(encoder.checkpoint, encoder.common_prefix(), encoder.digits)
