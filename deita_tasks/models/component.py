"""What a scorer and an embedder that run a decoder themselves have in common."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, PrivateAttr

from deita_tasks.components import Component
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.checkpoint import Checkpoint
from deita_tasks.models.hardware import Device, Dtype, choose_dtype, present_device
from deita_tasks.models.lazy import Lazy


class CausalLMComponent(Component):
    """Options, and the model that they name: loaded when it is first needed, let go by `release`."""

    model: str = Field(min_length=1, description="hub id or local folder")
    revision: str | None = Field(
        None, description="hub commit, tag or branch; default: the pinned one, else main"
    )
    dtype: Dtype = "auto"
    device: Device = "auto"
    batch_tokens: int | None = Field(
        None, ge=1, description="tokens in a batch, padding included; default: by device"
    )
    allow_bin: bool = Field(
        False, description="read pytorch_model.bin where there is no safetensors file"
    )

    _model: Lazy[CausalLM] = PrivateAttr(default_factory=Lazy)

    def release(self) -> None:
        """Forgets the loaded weights; the next `measure` loads them again."""
        self._model.release()

    def _load_model(
        self, checkpoint: Checkpoint, prefix: Sequence[int], head_ids: Sequence[int] | None = None
    ) -> CausalLM:
        device = present_device(self.device)
        dtype = choose_dtype(self.dtype, device)
        return CausalLM(
            checkpoint,
            dtype=dtype,
            device=device,
            allow_bin=self.allow_bin,
            head_ids=head_ids,
            prefix=prefix,
        )
