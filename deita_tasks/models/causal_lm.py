"""A decoder's hidden state at the last token of each text: what both the scorers and the paper's
embedder read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deita_tasks.errors import ModelError
from deita_tasks.models.batches import BatchLimit, run_batches
from deita_tasks.models.checkpoint import Checkpoint, rotary_turn
from deita_tasks.models.hardware import default_batch_tokens, torch_dtype
from deita_tasks.models.quiet import quiet_loading

if TYPE_CHECKING:
    import torch

    from deita_tasks.models.prefix import SharedPrefix

log = logging.getLogger(__name__)


class CausalLM:
    """The base model of a decoder, on its device, and optionally the rows of its head for some
    token ids.

    `head`: float32 (k, d) rows of lm_head (and `bias`, float32 (k,)) for the `head_ids` asked for,
    else None. `prefix`: token ids that most texts begin with, if any: these are gone through once,
    here.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: str,
        device: str,
        allow_bin: bool = False,
        head_ids: Sequence[int] | None = None,
        prefix: Sequence[int] = (),
    ) -> None:
        model = _load(
            checkpoint, torch_dtype(dtype), device, allow_bin, with_head=head_ids is not None
        )
        self.device = device
        self.limit = BatchLimit()
        self.head: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None
        self.prefix: SharedPrefix | None = None
        self.base: Any = model
        self.turn = rotary_turn(model.config, "longrope")
        if head_ids is not None:
            output = model.get_output_embeddings()
            self.base = model.base_model
            self.head = output.weight[list(head_ids)].detach().float()
            self.bias = (
                output.bias[list(head_ids)].detach().float()
                if getattr(output, "bias", None) is not None
                else None
            )
            self._prove_head(checkpoint, model, list(head_ids))
        if prefix:
            self._share(checkpoint, list(prefix))
        log.info("loaded %s on %s, %s", checkpoint.location, device, dtype)

    def last_hidden(
        self, texts: Sequence[Sequence[int]], batch_tokens: int | None = None
    ) -> tuple[torch.Tensor, list[int]]:
        """Hidden states after the final norm at the last token of each text of token ids: float32
        (n, d), on the device.

        Also the positions of texts that did not fit the memory even alone; their rows, and those of
        empty texts, are NaN. A text that comes several times is gone through once. Rows are padded
        on the right, where a causal model cannot see it: so no mask is needed, the attention
        kernels take their fast path, and neither the tokenizer's padding side nor its padding token
        matter.
        """
        import torch

        each = {
            ids: place
            for place, ids in enumerate(dict.fromkeys(tuple(ids) for ids in texts if len(ids)))
        }
        distinct = list(each)
        places: list[int] = []
        states: list[torch.Tensor] = []
        too_much: set[int] = set()

        with torch.inference_mode():
            for prefix, members in self._ways(distinct):
                skip = len(prefix.ids) if prefix is not None else 0

                def run(
                    batch: list[int],
                    prefix: SharedPrefix | None = prefix,
                    members: list[int] = members,
                ) -> None:
                    states.append(
                        self._forward([distinct[members[i]] for i in batch], prefix).float()
                    )
                    places.extend(members[i] for i in batch)

                lengths = [len(distinct[place]) - skip for place in members]
                budget = batch_tokens or default_batch_tokens(self.device)
                too_much |= {members[i] for i in run_batches(lengths, budget, run, self.limit)}
            hidden = torch.full(
                (len(distinct) + 1, self.base.config.hidden_size),
                torch.nan,
                dtype=torch.float32,
                device=self.device,
            )
            if states:
                hidden[torch.tensor(places, device=self.device)] = torch.cat(states)
            wanted = [
                each.get(tuple(ids), -1) for ids in texts
            ]  # -1: the last row, which is nobody's
            found = hidden[torch.tensor(wanted, dtype=torch.long, device=self.device)]
        return found, [i for i, place in enumerate(wanted) if place in too_much]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Raw logits of the head's ids, float32 (n, k): the product in float32, whatever the
        model's dtype.
        """
        import torch

        if self.head is None:
            raise ValueError("this CausalLM was loaded without head_ids")
        return torch.nn.functional.linear(hidden, self.head, self.bias)

    def _ways(self, texts: Sequence[Sequence[int]]) -> list[tuple[SharedPrefix | None, list[int]]]:
        """Which texts go on from the prefix, and which are gone through whole: those beyond `turn`
        by themselves.
        """
        beyond = [self.turn is not None and len(ids) > self.turn for ids in texts]
        shared = [
            self.prefix is not None and not far and self.prefix.fits(ids)
            for ids, far in zip(texts, beyond, strict=True)
        ]
        return [
            (self.prefix, [i for i, goes in enumerate(shared) if goes]),
            (None, [i for i, goes in enumerate(shared) if not goes and not beyond[i]]),
            (None, [i for i, far in enumerate(beyond) if far]),
        ]

    def _forward(
        self, batch: Sequence[Sequence[int]], prefix: SharedPrefix | None = None
    ) -> torch.Tensor:
        """(b, d) in the model's dtype, nothing waited for. With a `prefix`, which each text begins
        with, only what follows is computed.
        """
        import torch

        skip = len(prefix.ids) if prefix is not None else 0
        lengths = torch.tensor([len(ids) - skip for ids in batch])
        padded = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
        for row, ids in zip(padded, batch, strict=True):
            row[: len(ids) - skip] = torch.as_tensor(ids[skip:])
        if self.device.startswith("cuda"):
            padded, lengths = padded.pin_memory(), lengths.pin_memory()
        padded, lengths = (
            padded.to(self.device, non_blocking=True),
            lengths.to(self.device, non_blocking=True),
        )
        past: dict[str, Any] = (
            {"use_cache": False}
            if prefix is None
            else {"use_cache": True, "past_key_values": prefix}
        )
        states: torch.Tensor = self.base(input_ids=padded, **past).last_hidden_state
        return states[torch.arange(len(batch), device=self.device), lengths - 1]

    def _share(self, checkpoint: Checkpoint, ids: list[int]) -> None:
        """Computes the prefix, and proves that a text comes to the same with it; where it does not,
        texts are gone through whole.
        """
        import torch

        from deita_tasks.models.prefix import shared_prefix

        probe = [[*ids, *range(token, token + 1 + token % 2)] for token in range(3, 11)]
        with torch.inference_mode():
            prefix = shared_prefix(self.base, ids, self.device)
            whole = self._forward(probe).float()
            ours = whole if prefix is None else self._forward(probe, prefix).float()
        loose = 1e-3 if self.base.dtype is torch.float32 else 0.1
        if prefix is not None and _apart(ours, whole) <= loose:
            self.prefix = prefix
        else:
            log.info(
                "%s: %s goes through the prompt's beginning anew each time",
                checkpoint.location,
                type(self.base).__name__,
            )

    def _prove_head(self, checkpoint: Checkpoint, model: Any, head_ids: list[int]) -> None:
        """Some families change logits after the head (a scale, a soft cap); for these the head's
        rows are not the logits.
        """
        import torch

        probe = [list(range(3, 11))]
        with torch.inference_mode():
            whole = (
                model(
                    input_ids=torch.tensor(probe, device=self.device),
                    use_cache=False,
                    logits_to_keep=1,
                )
                .logits[0, -1, head_ids]
                .float()
            )
            ours = self.logits(self.last_hidden(probe)[0])[0]
        loose = 1e-4 if model.dtype is torch.float32 else 0.05
        if not torch.allclose(ours, whole, rtol=loose, atol=loose, equal_nan=True):
            raise ModelError(
                f"{checkpoint.location}: {type(model).__name__} changes its logits after lm_head "
                f"(the head gives {ours[0]:.4f}, the model {whole[0]:.4f}); expected a model "
                "whose logits are lm_head times the last state"
            )


def _apart(ours: torch.Tensor, whole: torch.Tensor) -> float:
    """The greatest distance of two rows, in lengths of the row; NaN where a state is.

    Each component is measured in its own mean magnitude: a few of a decoder's are a hundred times
    the others, nearly the same for every text, and would hide all that differs. (Tiny models in
    bfloat16: 0.015 at most; with keys 2% off 0.015 to 0.3, 10% off 0.06 to 0.9, with the keys of
    other tokens 1.3 and more.)
    """
    import torch

    usual = whole.abs().mean(0).clamp(min=torch.finfo(torch.float32).tiny)
    return float((((ours - whole) / usual).norm(dim=1) / (whole / usual).norm(dim=1)).max())


def _load(
    checkpoint: Checkpoint, dtype: torch.dtype, device: str, allow_bin: bool, with_head: bool
) -> Any:
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
        hint = (
            ""
            if allow_bin
            else "; if it has only pytorch_model.bin files, allow_bin=True reads them (weights "
            "alone, no code)"
        )
        raise ModelError(
            f"{checkpoint.location} cannot be loaded as a causal language model: "
            f"{str(error).strip()}{hint}"
        ) from error
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        raise ModelError(
            f"{checkpoint.location} has no weights for "
            f"{', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}: "
            "they would be random; expected a whole causal language model, lm_head included"
        )
    return model.to(device).eval()
