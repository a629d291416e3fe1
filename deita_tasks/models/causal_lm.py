"""A decoder's hidden state at the last token of each text: what both the scorers and the paper's embedder read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deita_tasks.errors import ModelError
from deita_tasks.models.batches import run_batches
from deita_tasks.models.checkpoint import Checkpoint
from deita_tasks.models.hardware import default_batch_tokens, torch_dtype
from deita_tasks.models.quiet import quiet_loading

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


class CausalLM:
    """The base model of a decoder, on its device, and optionally the rows of its head for some token ids.

    `head`: float32 (k, d) rows of lm_head (and `bias`, float32 (k,)) for the `head_ids` asked for, else None.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, dtype: str, device: str, allow_bin: bool = False, head_ids: Sequence[int] | None = None
    ) -> None:
        model = _load(checkpoint, torch_dtype(dtype), device, allow_bin, with_head=head_ids is not None)
        self.device = device
        self.head: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None
        self.base: Any = model
        if head_ids is not None:
            output = model.get_output_embeddings()
            self.base = model.base_model
            self.head = output.weight[list(head_ids)].detach().float()
            self.bias = output.bias[list(head_ids)].detach().float() if getattr(output, "bias", None) is not None else None
            self._prove_head(checkpoint, model, list(head_ids))
        log.info("loaded %s on %s, %s", checkpoint.location, device, dtype)

    def last_hidden(self, texts: Sequence[Sequence[int]], batch_tokens: int | None = None) -> tuple[torch.Tensor, list[int]]:
        """Hidden states after the final norm at the last token of each text of token ids: float32 (n, d), on the device.

        Also the positions of texts that did not fit the memory even alone; their rows, and those of empty texts, are NaN.
        Rows are padded on the right, where a causal model cannot see it: so no mask is needed, the attention kernels take their
        fast path, and neither the tokenizer's padding side nor its padding token matter.
        """
        import torch

        filled = [i for i, ids in enumerate(texts) if len(ids)]
        rows: list[int] = []
        states: list[torch.Tensor] = []

        def run(batch: list[int]) -> None:
            states.append(self._forward([texts[filled[i]] for i in batch]).float())
            rows.extend(filled[i] for i in batch)

        with torch.inference_mode():
            too_much = run_batches([len(texts[i]) for i in filled], batch_tokens or default_batch_tokens(self.device), run)
            hidden = torch.full((len(texts), self.base.config.hidden_size), torch.nan, dtype=torch.float32, device=self.device)
            if states:
                hidden[torch.tensor(rows, device=self.device)] = torch.cat(states)
        return hidden, [filled[i] for i in too_much]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Raw logits of the head's ids, float32 (n, k): the product in float32, whatever the model's dtype."""
        import torch

        if self.head is None:
            raise ValueError("this CausalLM was loaded without head_ids")
        return torch.nn.functional.linear(hidden, self.head, self.bias)

    def _forward(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        """(b, d) in the model's dtype, nothing waited for."""
        import torch

        lengths = torch.tensor([len(ids) for ids in batch])
        padded = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
        for row, ids in zip(padded, batch, strict=True):
            row[: len(ids)] = torch.as_tensor(ids)
        if self.device.startswith("cuda"):
            padded, lengths = padded.pin_memory(), lengths.pin_memory()
        padded, lengths = padded.to(self.device, non_blocking=True), lengths.to(self.device, non_blocking=True)
        states: torch.Tensor = self.base(input_ids=padded, use_cache=False).last_hidden_state
        return states[torch.arange(len(batch), device=self.device), lengths - 1]

    def _prove_head(self, checkpoint: Checkpoint, model: Any, head_ids: list[int]) -> None:
        """Some families change logits after the head (a scale, a soft cap); for these the head's rows are not the logits."""
        import torch

        probe = [list(range(3, 11))]
        with torch.inference_mode():
            whole = (
                model(input_ids=torch.tensor(probe, device=self.device), use_cache=False, logits_to_keep=1).logits[0, -1, head_ids].float()
            )
            ours = self.logits(self.last_hidden(probe)[0])[0]
        loose = 1e-4 if model.dtype is torch.float32 else 0.05
        if not torch.allclose(ours, whole, rtol=loose, atol=loose, equal_nan=True):
            raise ModelError(
                f"{checkpoint.location}: {type(model).__name__} changes its logits after lm_head "
                f"(the head gives {ours[0]:.4f}, the model {whole[0]:.4f}); expected a model whose logits are lm_head times the last state"
            )


def _load(checkpoint: Checkpoint, dtype: torch.dtype, device: str, allow_bin: bool, with_head: bool) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM

    auto = AutoModelForCausalLM if with_head else AutoModel
    try:
        with quiet_loading():
            model, report = auto.from_pretrained(
                checkpoint.location,
                revision=checkpoint.revision,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=None if allow_bin else True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        hint = "" if allow_bin else "; if it has only pytorch_model.bin files, allow_bin=True reads them (weights alone, no code)"
        raise ModelError(f"{checkpoint.location} cannot be loaded as a causal language model: {str(error).strip()}{hint}") from error
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        raise ModelError(
            f"{checkpoint.location} has no weights for {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}: "
            "they would be random; expected a whole causal language model, lm_head included"
        )
    return model.to(device).eval()
