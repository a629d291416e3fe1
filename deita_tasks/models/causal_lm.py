"""A decoder's hidden state at the last token of each text.

The paper's scorers and its embedder both read this state.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from deita_tasks.errors import ModelError
from deita_tasks.models.batches import BatchLimit, run_batches
from deita_tasks.models.checkpoint import Checkpoint, rope_threshold
from deita_tasks.models.hardware import default_batch_tokens, torch_dtype
from deita_tasks.models.quiet import quiet_loading

if TYPE_CHECKING:
    import torch

    from deita_tasks.models.prefix import SharedPrefix

log = logging.getLogger(__name__)

TokenIds: TypeAlias = Sequence[int]
PROBE_IDS = range(3, 11)  # arbitrary tokens, to compare two ways of computing a state


class TextGroup(NamedTuple):
    """Texts that are computed in the same way.

    `rows`: their positions. `prefix`: the beginning that they share, None if there is none.
    """

    rows: list[int]
    prefix: SharedPrefix | None


class CausalLM:
    """The base model of a decoder on its device, with rows of its head for some token ids.

    `head`: float32 (k, d), the rows of lm_head for `head_ids`, and `bias`, float32 (k,) or None;
    both None without `head_ids`. `prefix`: the token ids that most texts begin with, if any; they
    are computed once, here.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: str,
        device: str,
        allow_bin: bool = False,
        head_ids: Sequence[int] | None = None,
        prefix: TokenIds = (),
    ) -> None:
        has_head = head_ids is not None
        model = _load(checkpoint, torch_dtype(dtype), device, allow_bin, has_head)
        self.location = checkpoint.location
        self.device = device
        self.limit = BatchLimit()
        self.head: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None
        self.prefix: SharedPrefix | None = None
        self.base: Any = model
        self.rope_threshold = rope_threshold(model.config, "longrope")
        if head_ids is not None:
            self.base = model.base_model
            self._set_head(model, list(head_ids))
        if prefix:
            self._set_prefix(list(prefix))
        log.info("loaded %s on %s, %s", checkpoint.location, device, dtype)

    def last_hidden(
        self, texts: Sequence[TokenIds], batch_tokens: int | None = None
    ) -> tuple[torch.Tensor, list[int]]:
        """Return the hidden states at the last token of each text, after the final norm.

        float32 (n, d), on the device; and the positions of texts that did not fit memory even
        alone. Their rows, and those of texts without tokens, are NaN. Equal texts are computed
        once. Rows are padded on the right, which a causal model cannot see: so no mask is needed,
        the attention kernels take their fast path, and neither the tokenizer's padding side nor its
        padding token matters.
        """
        import torch

        distinct = list(dict.fromkeys(tuple(ids) for ids in texts if len(ids)))
        row_of = {ids: row for row, ids in enumerate(distinct)}
        no_row = len(distinct)
        rows = [row_of.get(tuple(ids), no_row) for ids in texts]
        with torch.inference_mode():
            states, too_long = self._distinct_states(distinct, batch_tokens)
            index = torch.tensor(rows, dtype=torch.long, device=self.device)
            hidden = states[index]
        return hidden, [position for position, row in enumerate(rows) if row in too_long]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the raw logits of the head's ids, float32 (n, k).

        The product is in float32, whatever the model's number type.
        """
        import torch

        if self.head is None:
            raise ValueError("this CausalLM was loaded without head_ids")
        return torch.nn.functional.linear(hidden, self.head, self.bias)

    def _distinct_states(
        self, texts: Sequence[TokenIds], batch_tokens: int | None
    ) -> tuple[torch.Tensor, set[int]]:
        """Return the states of n texts, float32 (n + 1, d), and the rows that did not fit memory.

        The last row, and those that did not fit, are NaN.
        """
        import torch

        budget = batch_tokens or default_batch_tokens(self.device)
        rows: list[int] = []
        parts: list[torch.Tensor] = []
        too_long: set[int] = set()
        for group in self._group_texts(texts):
            too_long |= self._run_group(texts, group, budget, rows, parts)
        states = torch.full(
            (len(texts) + 1, self.base.config.hidden_size),
            torch.nan,
            dtype=torch.float32,
            device=self.device,
        )
        if parts:
            states[torch.tensor(rows, device=self.device)] = torch.cat(parts)
        return states, too_long

    def _group_texts(self, texts: Sequence[TokenIds]) -> list[TextGroup]:
        """Return the texts that begin with the prefix, and those that are computed whole.

        Texts beyond `rope_threshold` are a group of their own: transformers takes a whole batch's
        frequencies from its longest text.
        """
        shared: list[int] = []
        whole: list[int] = []
        beyond: list[int] = []
        for row, ids in enumerate(texts):
            if self.rope_threshold is not None and len(ids) > self.rope_threshold:
                beyond.append(row)
            elif self.prefix is not None and self.prefix.fits(ids):
                shared.append(row)
            else:
                whole.append(row)
        return [TextGroup(shared, self.prefix), TextGroup(whole, None), TextGroup(beyond, None)]

    def _run_group(
        self,
        texts: Sequence[TokenIds],
        group: TextGroup,
        budget: int,
        rows: list[int],
        parts: list[torch.Tensor],
    ) -> set[int]:
        """Append the states of a group to `parts` and their positions to `rows`.

        Return the positions of texts that did not fit memory.
        """
        prefix_length = len(group.prefix.ids) if group.prefix is not None else 0
        lengths = [len(texts[row]) - prefix_length for row in group.rows]

        def run(batch: list[int]) -> None:
            batch_rows = [group.rows[position] for position in batch]
            batch_texts = [texts[row] for row in batch_rows]
            parts.append(self._forward(batch_texts, group.prefix).float())
            rows.extend(batch_rows)

        too_long = run_batches(lengths, budget, run, self.limit)
        return {group.rows[position] for position in too_long}

    def _forward(
        self, batch: Sequence[TokenIds], prefix: SharedPrefix | None = None
    ) -> torch.Tensor:
        """Return the last states of a batch, (b, d) in the model's number type.

        With a `prefix`, which each text begins with, only the tokens after it are computed. On CUDA
        this does not wait for the device.
        """
        import torch

        skip = len(prefix.ids) if prefix is not None else 0
        lengths = torch.tensor([len(ids) - skip for ids in batch])
        padded = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
        for row, ids in zip(padded, batch, strict=True):
            row[: len(ids) - skip] = torch.as_tensor(ids[skip:])
        if self.device.startswith("cuda"):
            padded = padded.pin_memory()
            lengths = lengths.pin_memory()
        padded = padded.to(self.device, non_blocking=True)
        lengths = lengths.to(self.device, non_blocking=True)
        if prefix is None:
            output = self.base(input_ids=padded, use_cache=False)
        else:
            output = self.base(input_ids=padded, use_cache=True, past_key_values=prefix)
        states: torch.Tensor = output.last_hidden_state
        return states[torch.arange(len(batch), device=self.device), lengths - 1]

    def _set_prefix(self, ids: list[int]) -> None:
        """Compute the prefix, and keep it if texts have the same states with it and without."""
        import torch

        from deita_tasks.models.prefix import compute_prefix

        probe = [[*ids, *range(token, token + 1 + token % 2)] for token in PROBE_IDS]
        tolerance = 1e-3 if self.base.dtype is torch.float32 else 0.1
        with torch.inference_mode():
            prefix = compute_prefix(self.base, ids, self.device)
            if prefix is not None:
                whole = self._forward(probe).float()
                continued = self._forward(probe, prefix).float()
                if relative_distance(continued, whole) <= tolerance:
                    self.prefix = prefix
        if self.prefix is None:
            log.info(
                "%s: %s computes the prompt's beginning anew for each text",
                self.location,
                type(self.base).__name__,
            )

    def _set_head(self, model: Any, head_ids: list[int]) -> None:
        """Keep the head's rows for `head_ids`, and check that they give the model's logits.

        Some model families change logits after the head (a scale, a soft cap).
        """
        import torch

        output = model.get_output_embeddings()
        bias = getattr(output, "bias", None)
        self.head = output.weight[head_ids].detach().float()
        if bias is not None:
            self.bias = bias[head_ids].detach().float()
        probe = list(PROBE_IDS)
        with torch.inference_mode():
            input_ids = torch.tensor([probe], device=self.device)
            whole = model(input_ids=input_ids, use_cache=False, logits_to_keep=1)
            expected = whole.logits[0, -1, head_ids].float()
            hidden, _ = self.last_hidden([probe])
            logits = self.logits(hidden)[0]
        tolerance = 1e-4 if model.dtype is torch.float32 else 0.05
        if not torch.allclose(logits, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise ModelError(
                f"{self.location}: {type(model).__name__} changes its logits after lm_head (the "
                f"head gives {logits[0]:.4f}, the model {expected[0]:.4f}); expected a model whose "
                "logits are lm_head times the last state"
            )


def relative_distance(states: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the greatest distance of two rows, relative to the row's length; NaN if a state is.

    Each component is measured in its own mean magnitude: a few components of a decoder are a
    hundred times larger than the others, nearly equal for every text, and would hide all
    differences. (Tiny models in bfloat16: at most 0.015; with keys 2% off 0.015 to 0.3, 10% off
    0.06 to 0.9, with the keys of other tokens 1.3 and more.)
    """
    import torch

    magnitude = expected.abs().mean(0).clamp(min=torch.finfo(torch.float32).tiny)
    distances = ((states - expected) / magnitude).norm(dim=1)
    lengths = (expected / magnitude).norm(dim=1)
    return float((distances / lengths).max())


def _load(
    checkpoint: Checkpoint, dtype: torch.dtype, device: str, allow_bin: bool, with_head: bool
) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM

    model_class = AutoModelForCausalLM if with_head else AutoModel
    try:
        with quiet_loading():
            model, report = model_class.from_pretrained(
                checkpoint.location,
                revision=checkpoint.revision,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=None if allow_bin else True,
                output_loading_info=True,
            )
    except Exception as error:  # a damaged checkpoint makes the library raise almost anything
        hint = (
            "if it has only pytorch_model.bin files, allow_bin=True reads them (weights, no code)"
        )
        message = (
            f"{checkpoint.location} cannot be loaded as a causal language model: "
            f"{str(error).strip()}"
        )
        raise ModelError(message if allow_bin else f"{message}; {hint}") from error
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        names = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise ModelError(
            f"{checkpoint.location} has no weights for {names}: they would be random; expected a "
            "whole causal language model, lm_head included"
        )
    return model.to(device).eval()
