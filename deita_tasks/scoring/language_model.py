"""Scores by what a small language model makes of a response: its perplexity, and its IFD.

The instruction-following difficulty (IFD; Li et al., Superfiltering, ACL 2024) says how little the
instruction helps a model to predict the response:

    IFD = perplexity of the response after the instruction / perplexity of the response alone

The texts, their truncation and the tokens that count are those of the authors' program
(code_ifd/data_analysis.py), which uses GPT-2: the instruction, a line end, the response, and no
chat template. Where that program writes NaN or 0, and drops the row later, the pair has no value
here and says why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, PrivateAttr

from deita_tasks.components import Fingerprint
from deita_tasks.conversations import Conversation
from deita_tasks.models.batches import out_of_memory_problem
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.checkpoint import Checkpoint, find_checkpoint
from deita_tasks.models.component import CausalLMComponent
from deita_tasks.models.hardware import Dtype
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.prefetch import prefetch
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.presets import LANGUAGE_MODEL_TOKENS
from deita_tasks.records import Forecast, ModelOutput
from deita_tasks.scoring.base import Scorer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LARGEST = float(np.finfo(np.float32).max)
TEMPLATE = "{instruction}\n{response}"


class EncodedPair(NamedTuple):
    """The token ids of a pair; none of a pair that has no value, for the `problem`.

    whole: of instruction and response, up to the limit. start: where those of the response begin.
    alone: of the response, as far as it is in `whole`. truncated_tokens: of both, over the limit.
    """

    whole: list[int]
    start: int
    alone: list[int]
    truncated_tokens: int
    problem: str | None = None


class PairEncoder(NamedTuple):
    """A checkpoint's tokenizer, the most tokens of a pair, and the fewest of a response alone."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    max_length: int
    least_alone: int

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """Return the token ids of pairs, in their order.

        Prompts, whole texts and responses are tokenized separately: a token may span where two of
        them meet. A pair without a value has its `problem` and no ids.
        """
        prompts = self._ids([f"{instruction}\n" for instruction, _ in pairs])
        wholes = self._ids([f"{instruction}\n{response}" for instruction, response in pairs])
        responses = self._ids([response for _, response in pairs])
        return list(map(self._encode, prompts, wholes, responses))

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of whole texts, the tokenizer's special ones included."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts))]

    def _encode(self, prompt: list[int], whole: list[int], response: list[int]) -> EncodedPair:
        """The prompt is encoded by itself to find where the response begins, as the authors do."""
        start = len(prompt)
        room = self.max_length - start
        truncated = max(0, len(whole) - self.max_length)
        problem = None
        if len(whole) <= start or len(response) < self.least_alone:
            problem = "its response has too few tokens to predict one"
        elif room <= 0:
            problem = (
                f"its instruction takes {start:,} tokens and leaves none of {self.max_length:,} "
                "to the response"
            )
        if problem is not None:
            return EncodedPair([], start, [], truncated, problem)
        # With one token more than there is room for: the first one is not predicted.
        return EncodedPair(whole[: self.max_length], start, response[: room + 1], truncated)


class LanguageModelScorer(CausalLMComponent, Scorer):
    """Base class of scores that are made of the losses of a response's tokens."""

    VERSION: ClassVar[int] = 1
    READS_ALONE: ClassVar[bool]  # whether the model also reads the response without instruction

    dtype: Dtype = Field(
        "float32", description="bfloat16 is faster, and moves a perplexity by about a percent"
    )
    max_length: int = Field(
        LANGUAGE_MODEL_TOKENS, ge=2, description="most tokens of a pair that are read"
    )

    _encoder: Lazy[PairEncoder] = PrivateAttr(default_factory=Lazy)

    @property
    def encoder(self) -> PairEncoder:
        """The pairs' encoder, loaded when first used."""
        return self._encoder.get(self._load_encoder)

    def fingerprint(self) -> Fingerprint:
        """Return score, checkpoint, template, limit and number type; loads no weights."""
        return {
            "backend": self.kind,
            "version": self.VERSION,
            "kind": self.kind,
            **self.encoder.checkpoint.identity(),
            "template": TEMPLATE,
            "max_length": self.max_length,
            **self.number_identity(),
        }

    def compute(self, pairs: Sequence[tuple[str, str]]) -> ModelOutput:
        """Return the scores of pairs, float32 (n,), above 0 and without an upper bound.

        NaN and a problem for a pair whose response has too few tokens, whose instruction fills the
        limit, that does not fit memory even alone, or whose losses give no finite number. Raises
        ModelError if the checkpoint cannot be used.
        """
        values: list[float] = []
        truncated: list[int] = []
        problems: dict[int, str] = {}
        model = self._model.get(self._load_model)
        for piece in prefetch(pairs, self.encoder.encode):
            found, reasons = self._score_pairs(model, piece)
            for position, reason in reasons.items():
                problems[len(values) + position] = reason
            values += found
            truncated += [pair.truncated_tokens for pair in piece]
        return ModelOutput(np.array(values, np.float32), np.array(truncated, np.int32), problems)

    def forecast(self, conversations: Sequence[Conversation]) -> Forecast:
        """Return the tokens read and left out; IFD reads a response twice, and both count."""
        tokens = np.zeros(len(conversations), np.int64)
        truncated = np.zeros(len(conversations), np.int64)
        for row, conversation in enumerate(conversations):
            for pair in self.encoder.encode(conversation.pairs):
                tokens[row] += len(pair.whole) + self.READS_ALONE * len(pair.alone)
                truncated[row] += pair.truncated_tokens
        return Forecast(self.max_length, None, tokens, truncated)

    def _score_pairs(
        self, model: CausalLM, pairs: Sequence[EncodedPair]
    ) -> tuple[list[float], dict[int, str]]:
        """Return the score of each pair, NaN for those that have none, and by position why.

        A perplexity is the same ratio with a loss of 0 in place of the response's own.
        """
        whole = MeanLosses.of(model, [pair.whole for pair in pairs], [pair.start for pair in pairs])
        alone = MeanLosses([0.0] * len(pairs), {})
        if self.READS_ALONE:
            alone = MeanLosses.of(model, [pair.alone for pair in pairs], [1] * len(pairs))
        problems = {**alone.problems, **whole.problems}
        scores = list(map(_ratio, whole.values, alone.values))
        for position, (pair, score) in enumerate(zip(pairs, scores, strict=True)):
            if pair.problem is not None:
                problems[position] = pair.problem
            elif not score <= LARGEST:
                problems.setdefault(position, "the model's losses give no finite number")
        for position in problems:
            scores[position] = math.nan
        return scores, problems

    def _load_encoder(self) -> PairEncoder:
        """Return the encoder of pairs, which reads no weights.

        Raises UsageError if the model cannot read `max_length` tokens. A response that is read
        alone needs two tokens: the first one has nothing to be predicted from.
        """
        checkpoint = find_checkpoint(self.model, self.revision)
        checkpoint.limit(self.max_length)
        least_alone = 2 if self.READS_ALONE else 1
        return PairEncoder(checkpoint, load_tokenizer(checkpoint), self.max_length, least_alone)

    def _load_model(self) -> CausalLM:
        """Return the decoder with its whole head: a loss needs the logits of all tokens."""
        checkpoint = self.encoder.checkpoint
        vocabulary = range(checkpoint.config().get_text_config().vocab_size)
        return self._load_causal_lm(checkpoint, (), vocabulary)


class IFD(LanguageModelScorer):
    """How little the instruction helps a language model to predict the response.

    exp(mean loss of the response's tokens after the instruction - their mean loss without it). Near
    0 the instruction says it all; at 1 and above it does not help.
    """

    READS_ALONE: ClassVar[bool] = True

    kind: Literal["ifd"] = "ifd"


class Perplexity(LanguageModelScorer):
    """The perplexity of the response after the instruction: exp(mean loss of its tokens)."""

    READS_ALONE: ClassVar[bool] = False

    kind: Literal["perplexity"] = "perplexity"


class MeanLosses(NamedTuple):
    """The mean losses of n texts, in nats; NaN for those with a problem, by position."""

    values: list[float]
    problems: dict[int, str]

    @classmethod
    def of(cls, model: CausalLM, texts: Sequence[list[int]], starts: Sequence[int]) -> MeanLosses:
        """Return the mean losses of each text's tokens from its start on, but never of the first.

        The exact sum of the losses, rounded once.
        """
        losses, too_long = model.token_losses(texts)
        problems = {
            position: out_of_memory_problem(model.device, len(texts[position]))
            for position in too_long
        }
        values = []
        for of_text, start in zip(losses, starts, strict=True):
            of_response = of_text[max(0, start - 1) :].tolist()
            values.append(math.fsum(of_response) / len(of_response) if of_response else math.nan)
        return cls(values, problems)


def _ratio(loss: float, other: float) -> float:
    """Return the ratio of the perplexities with these losses; infinity if it is too large."""
    try:
        return math.exp(loss - other)
    except OverflowError:
        return math.inf
