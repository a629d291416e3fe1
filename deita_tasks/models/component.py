"""Base class of the scorer and the embedder that run a decoder in this process."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from deita_tasks.components import Component, Fingerprint
from deita_tasks.models.batches import out_of_memory_problem
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.checkpoint import Checkpoint
from deita_tasks.models.hardware import Device, Dtype, choose_dtype, require_device
from deita_tasks.models.lazy import Lazy
from deita_tasks.models.prefetch import prefetch
from deita_tasks.models.tokenizer import Tokens

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class DecoderRun(NamedTuple):
    """What a decoder computed for n texts.

    `values`: float32 (n, k). `tokens`: what it read of each text. `problems`: by position, why a
    text did not fit memory.
    """

    values: NDArray[np.float32]
    tokens: list[Tokens]
    problems: dict[int, str]

    def truncated_tokens(self) -> NDArray[np.int32]:
        """Return the tokens left out of each text: int32 (n,)."""
        return np.array([text.truncated_tokens for text in self.tokens], np.int32)


class CausalLMComponent(Component):
    """The options, and the model that they name: loaded when first needed."""

    model: str = Field(min_length=1, description="hub id or local folder")
    revision: str | None = Field(
        None, description="hub commit, tag or branch; default: the pinned one, else main"
    )
    dtype: Dtype = "auto"
    device: Device = "auto"
    batch_tokens: int | None = Field(
        None,
        ge=1,
        description="tokens of every batch on a GPU, which last bits depend on; default: 8,192",
    )
    allow_bin: bool = Field(
        False, description="read pytorch_model.bin if there is no safetensors file"
    )

    compile: bool = Field(
        False, description="fuse norms and MLPs by torch.compile, when the model is loaded"
    )

    _model: Lazy[CausalLM] = PrivateAttr(default_factory=Lazy)

    def number_identity(self) -> Fingerprint:
        """Return the options that change how numbers are rounded, for a fingerprint.

        The number type is the one that "auto" stands for here; `compiled` is named only where it is
        set.
        """
        identity: Fingerprint = {"dtype": choose_dtype(self.dtype, self.device)}
        if self.compile:  # fingerprints of earlier versions do not name it
            identity["compiled"] = True
        return identity

    def release(self) -> None:
        """Forget the loaded weights; `compute` loads them again."""
        self._model.release()

    @abstractmethod
    def _load_model(self) -> CausalLM:
        """Load the decoder by `_load_causal_lm`, with what this component needs of its head."""

    def _read_states(self, model: CausalLM, states: torch.Tensor) -> torch.Tensor:
        """Return a component's values, (n, k), from hidden states (n, d): the states themselves."""
        return states

    def _run_model(
        self, texts: Sequence[T], tokenize: Callable[[Sequence[T]], list[Tokens]]
    ) -> DecoderRun:
        """Run the decoder over n texts, in order, and tokenize the next ones while it computes.

        Values of texts without tokens, and of those with a problem, are NaN.
        """
        model = self._model.get(self._load_model)
        tokens: list[Tokens] = []
        parts: list[NDArray[np.float32]] = []
        problems: dict[int, str] = {}
        for piece in prefetch(texts, tokenize):
            states, too_long = model.last_hidden([text.ids for text in piece])
            parts.append(self._read_states(model, states).cpu().numpy())
            for position in too_long:
                length = len(piece[position].ids)
                problems[len(tokens) + position] = out_of_memory_problem(model.device, length)
            tokens += piece
        return DecoderRun(np.concatenate(parts), tokens, problems)

    def _load_causal_lm(
        self, checkpoint: Checkpoint, prefix: Sequence[int], head_ids: Sequence[int] | None = None
    ) -> CausalLM:
        """Return the decoder of a checkpoint, under this component's options.

        `prefix`: token ids that most texts begin with. `head_ids`: the rows of lm_head to keep,
        None for states alone. Raises UsageError for a device that is not there, ModelError for an
        unusable checkpoint.
        """
        device = require_device(self.device)
        return CausalLM(
            checkpoint,
            dtype=choose_dtype(self.dtype, device),
            device=device,
            allow_bin=self.allow_bin,
            head_ids=head_ids,
            prefix=prefix,
            compiled=self.compile,
            batch_tokens=self.batch_tokens,
        )
