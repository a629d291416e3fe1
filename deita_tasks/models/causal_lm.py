"""A decoder's hidden state at the last token of each text, or the loss of each of its tokens.

The paper's scorers and its embedder read the state; IFD and perplexity are made of losses.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deita_tasks.errors import ModelError
from deita_tasks.models.batches import BatchLimit
from deita_tasks.models.checkpoint import Checkpoint, rope_threshold
from deita_tasks.models.fixed_batches import FixedBatch, run_fixed_batches
from deita_tasks.models.hardware import fixed_batch_tokens, torch_dtype
from deita_tasks.models.quiet import quiet_loading

if TYPE_CHECKING:
    import torch

    from deita_tasks.models.forward import ForwardPass
    from deita_tasks.models.prefix import SharedPrefix

log = logging.getLogger(__name__)

TokenIds: TypeAlias = Sequence[int]
# Of a way to compute texts, the positions of a batch's texts and the tokens to fill it up to.
RunBatch: TypeAlias = "Callable[[ForwardPass, list[int], int], None]"
HEAD_ROWS = 256  # of a block of last states that the head reads


class TextGroup(NamedTuple):
    """The positions of texts that are computed in the same way, and this way."""

    rows: list[int]
    forward: ForwardPass


class CausalLM:
    """The base model of a decoder on its device, with rows of its head for some token ids.

    `head`: float32 (k, d), the rows of lm_head for `head_ids`, and `bias`, float32 (k,) or None;
    both None without `head_ids`. `prefix`: the token ids that most texts begin with, if any; they
    are computed once, here.

    A state depends on its text alone, to the last bit: every batch has the same number of tokens,
    and no text sees another. `forward`: the way that texts are computed, packed into one row, or
    padded for a model that cannot read them so. `compiled`: fuse elementwise parts, if they are
    packed. `batch_tokens`: the tokens of a batch on a GPU; on a CPU they do not change.
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
        compiled: bool = False,
        batch_tokens: int | None = None,
    ) -> None:
        import torch

        from deita_tasks.models.forward import PaddedForward, choose_forward

        has_head = head_ids is not None
        model = _load(checkpoint, torch_dtype(dtype), device, allow_bin, has_head)
        self.location = checkpoint.location
        self.device = device
        self.limit = BatchLimit()
        self.batch_tokens = batch_tokens
        self.head: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None
        self.base: Any = model if head_ids is None else model.base_model
        self.forward: ForwardPass = PaddedForward(self.base, device)
        self.has_experts = _has_experts(model)
        self.rope_threshold = rope_threshold(model.config, "longrope")
        with torch.inference_mode():
            if head_ids is not None:
                self._set_head(model, list(head_ids))
            self.forward = choose_forward(self.base, list(prefix), device, self.location)
            if compiled:
                self._compile()
        log.info("loaded %s on %s, %s", checkpoint.location, device, dtype)

    @property
    def prefix(self) -> SharedPrefix | None:
        """The beginning that is not computed again, if texts have one."""
        return self.forward.prefix

    def last_hidden(self, texts: Sequence[TokenIds]) -> tuple[torch.Tensor, list[int]]:
        """Return the hidden states at the last token of each text, after the final norm.

        float32 (n, d), on the device; and the positions of texts that did not fit memory even
        alone. Their rows, and those of texts without tokens, are NaN. Equal texts are computed
        once.
        """
        import torch

        distinct = list(dict.fromkeys(tuple(ids) for ids in texts if len(ids)))
        row_of = {ids: row for row, ids in enumerate(distinct)}
        no_row = len(distinct)
        rows = [row_of.get(tuple(ids), no_row) for ids in texts]
        with torch.inference_mode():
            states, too_long = self._distinct_states(distinct, self._tokens_per_batch)
            index = torch.tensor(rows, dtype=torch.long, device=self.device)
            hidden = states[index]
        return hidden, [position for position, row in enumerate(rows) if row in too_long]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the raw logits of the head's ids, float32 (n, k), from float32 states (n, d).

        The product is in float32, whatever the model's number type, and in blocks of one size: so a
        row's logits do not depend on n. Raises ValueError if the model was loaded without
        `head_ids`.
        """
        import torch

        if self.head is None:
            raise ValueError("this CausalLM was loaded without head_ids")
        padding = -len(hidden) % HEAD_ROWS
        padded = torch.nn.functional.pad(hidden, (0, 0, 0, padding))
        blocks = []
        for block in torch.split(padded, HEAD_ROWS):
            product = torch.nn.functional.linear(block, self.head, self.bias)
            blocks.append(product)
        logits = torch.cat(blocks)
        return logits[: len(hidden)]

    def token_losses(
        self, texts: Sequence[TokenIds]
    ) -> tuple[list[NDArray[np.float32]], list[int]]:
        """Return the negative log-probability of each token but the first, given those before.

        In nats, float32 (length - 1,) for each text; and the positions of texts that did not fit
        memory even alone, which have none. The head must have all token ids, in order. A loss
        depends on its text alone, as a state does.
        """
        import torch

        losses = [np.zeros(0, np.float32) for _ in texts]
        rows = [row for row, ids in enumerate(texts) if len(ids) > 1]

        def run(forward: ForwardPass, batch_rows: list[int], tokens: int) -> None:
            """Keep a batch's losses; its rows count among the texts with two tokens or more."""
            batch = [longer[row] for row in batch_rows]
            for row, states in zip(batch_rows, forward.run_all(batch, tokens), strict=True):
                found = self._losses_of(states[:-1], longer[row][1:])
                losses[rows[row]] = found.cpu().numpy()

        longer = [texts[row] for row in rows]
        with torch.inference_mode():
            too_long = self._run_texts(longer, self._tokens_per_batch, run)
        return losses, sorted(rows[row] for row in too_long)

    def _losses_of(self, states: torch.Tensor, following: TokenIds) -> torch.Tensor:
        """Return the loss of the token that follows each of n states, in nats, float32 (n,).

        `states`: (n, d), in the model's number type. `following`: n token ids.
        """
        import torch

        targets = torch.as_tensor(following, device=self.device)
        blocks = []
        for start in range(0, len(states), HEAD_ROWS):  # a block's logits are the largest array
            logits = self.logits(states[start : start + HEAD_ROWS].float())
            block_targets = targets[start : start + HEAD_ROWS]
            blocks.append(
                torch.nn.functional.cross_entropy(logits, block_targets, reduction="none")
            )
        return torch.cat(blocks)

    @property
    def _tokens_per_batch(self) -> int:
        """The tokens of every batch: a fixed number on a CPU, an option or a default on a GPU."""
        return fixed_batch_tokens(self.device, self.batch_tokens or self.forward.gpu_tokens)

    def _compile(self) -> None:
        """Fuse elementwise parts for batches of the usual size, and wait for the compiler.

        The log says how long it took, or why there is nothing to compile.
        """
        from deita_tasks.models.compiled import compile_elementwise
        from deita_tasks.models.forward import PackedForward

        if not isinstance(self.forward, PackedForward):
            log.warning("%s: padded texts are not compiled: their batches differ", self.location)
            return
        tokens = self._tokens_per_batch
        names = compile_elementwise(self.base, tokens)
        start = time.monotonic()
        self.forward.run([range(3, 11)], tokens)
        seconds = time.monotonic() - start
        parts = ", ".join(names) or "nothing"
        log.info("%s: compiled %s for %d tokens in %.0f s", self.location, parts, tokens, seconds)

    def _distinct_states(
        self, texts: Sequence[TokenIds], tokens: int
    ) -> tuple[torch.Tensor, set[int]]:
        """Return the states of n texts, float32 (n + 1, d), and the rows that did not fit memory.

        The last row, and those that did not fit, are NaN.
        """
        import torch

        rows: list[int] = []
        parts: list[torch.Tensor] = []

        def run(forward: ForwardPass, batch_rows: list[int], tokens: int) -> None:
            """Keep the states of a batch in float32, and the rows that they belong to."""
            states = forward.run([texts[row] for row in batch_rows], tokens)
            parts.append(states.float())
            rows.extend(batch_rows)

        too_long = self._run_texts(texts, tokens, run)
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
        """Return the texts that may share a batch.

        Texts beyond `rope_threshold` are a group of their own, and are computed whole: transformers
        takes a whole batch's frequencies from its longest text.
        """
        threshold = self.rope_threshold
        if threshold is None:
            return [TextGroup(list(range(len(texts))), self.forward)]
        within: list[int] = []
        beyond: list[int] = []
        for row, ids in enumerate(texts):
            if len(ids) > threshold:
                beyond.append(row)
            else:
                within.append(row)
        whole = self.forward.without_prefix()
        return [TextGroup(within, self.forward), TextGroup(beyond, whole)]

    def _run_texts(self, texts: Sequence[TokenIds], tokens: int, run: RunBatch) -> set[int]:
        """Call `run` with batches of all texts; return the positions of those that did not fit.

        A mixture of experts computes each text by itself.
        """
        if self.has_experts:  # the rows of an expert's product are those that the batch sends there
            tokens = 0  # so each text is a batch of its own
        too_long: set[int] = set()
        for group in self._group_texts(texts):
            too_long |= self._run_group(texts, group, tokens, run)
        return too_long

    def _run_group(
        self, texts: Sequence[TokenIds], group: TextGroup, tokens: int, run: RunBatch
    ) -> set[int]:
        """Call `run` with batches of a group; return its rows that do not fit memory alone."""
        forward = group.forward
        lengths = [forward.length(texts[row]) for row in group.rows]

        def run_batch(batch: FixedBatch) -> None:
            """Hand a batch on, with rows of all texts in place of positions within the group."""
            rows = [group.rows[position] for position in batch.positions]
            run(forward, rows, batch.tokens)

        too_long = run_fixed_batches(lengths, tokens, run_batch, forward.plan, self.limit)
        return {group.rows[position] for position in too_long}

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
        probe = range(3, 11)  # arbitrary tokens
        input_ids = torch.tensor([list(probe)], device=self.device)
        whole = model(input_ids=input_ids, use_cache=False, logits_to_keep=1)
        expected = whole.logits[0, -1, head_ids].float()
        logits = self.logits(self.forward.run([probe], len(probe)).float())[0]
        tolerance = 1e-4 if model.dtype is torch.float32 else 0.05
        # A logit near 0 is a sum of large terms: it is rounded as the largest logits are.
        largest = float(expected.nan_to_num().abs().max())
        near = tolerance * max(1.0, largest)
        if not torch.allclose(logits, expected, rtol=tolerance, atol=near, equal_nan=True):
            raise ModelError(
                f"{self.location}: {type(model).__name__} changes its logits after lm_head (the "
                f"head gives {logits[0]:.4f}, the model {expected[0]:.4f}); expected a model whose "
                "logits are lm_head times the last state"
            )


def _has_experts(model: Any) -> bool:
    """Return whether the model is a mixture of experts, which takes tokens apart."""
    return any("Experts" in type(module).__name__ for module in model.modules())


def _load(
    checkpoint: Checkpoint, dtype: torch.dtype, device: str, allow_bin: bool, with_head: bool
) -> Any:
    """Return the model with all its weights, on its device and ready to compute.

    `with_head`: with lm_head, else without. Raises ModelError for a checkpoint that transformers
    cannot load, that has only .bin files without `allow_bin`, or that lacks weights.
    """
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
