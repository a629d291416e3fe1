"""Two ways through a decoder, to the last states of some texts: packed in one row, or padded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import torch

from deita_tasks.models.batches import padded_width
from deita_tasks.models.fixed_batches import FixedBatch, plan_packed, plan_padded
from deita_tasks.models.packed import ATTENTION, PackedBatch, PackedLayout, layer_windows
from deita_tasks.models.prefix import SharedPrefix, compute_prefix
from deita_tasks.models.quiet import quiet_loading

log = logging.getLogger(__name__)

TokenIds: TypeAlias = Sequence[int]
PROBE_IDS = range(3, 11)  # arbitrary tokens, to compare two ways of computing a state


class ForwardPass(Protocol):
    """A way to compute the last states of texts, in batches of a fixed size.

    `prefix`: the beginning that is not computed again, if there is one. `gpu_tokens`: the tokens of
    a batch on a GPU.
    """

    prefix: SharedPrefix | None
    gpu_tokens: int

    def length(self, text: TokenIds) -> int:
        """Return how many tokens of a text are computed; those of the prefix do not count."""

    def plan(
        self, lengths: Sequence[int], positions: Sequence[int], tokens: int
    ) -> list[FixedBatch]:
        """Return batches of `tokens` tokens that cover the `positions` of `lengths`.

        A longer text is a batch of its own, of a size that depends on its length alone.
        """

    def run(self, texts: Sequence[TokenIds], tokens: int) -> torch.Tensor:
        """Return the last states of a batch of `tokens` tokens, (n, d), after the final norm.

        In the model's number type.
        """

    def run_all(self, texts: Sequence[TokenIds], tokens: int) -> list[torch.Tensor]:
        """Return the states of all tokens of each text of a batch, (length, d), as `run` does.

        Of a text that begins with the prefix, those after it.
        """

    def without_prefix(self) -> ForwardPass:
        """Return the same way, with every text computed whole."""


class PaddedForward:
    """Texts of one width side by side, filled up to a whole number of rows.

    They are padded on the right, which a causal model cannot see: so no mask is needed, and neither
    the tokenizer's padding side nor its padding token matters.
    """

    prefix: SharedPrefix | None = None
    gpu_tokens = 2048  # each width's last batch is filled up, so not more

    def __init__(self, base: Any, device: str) -> None:
        self.base = base
        self.device = device

    def length(self, text: TokenIds) -> int:
        """Return the length of the whole text: padded texts skip no prefix."""
        return len(text)

    def plan(
        self, lengths: Sequence[int], positions: Sequence[int], tokens: int
    ) -> list[FixedBatch]:
        """Return batches of one width; on a CPU with as many rows for each thread, or one row."""
        multiple = torch.get_num_threads() if self.device == "cpu" else 1
        return plan_padded(lengths, positions, tokens, multiple)

    def run(self, texts: Sequence[TokenIds], tokens: int) -> torch.Tensor:
        """Return the state at each text's last token, (n, d); rows that fill up have none."""
        states = self._states(texts, tokens)
        rows = torch.arange(len(texts))
        last = torch.tensor([len(ids) for ids in texts]) - 1
        return states[rows, last]

    def run_all(self, texts: Sequence[TokenIds], tokens: int) -> list[torch.Tensor]:
        """Return the states of each text, (length, d), without those of its padding."""
        states = self._states(texts, tokens)
        return [row[: len(ids)] for row, ids in zip(states, texts, strict=False)]

    def _states(self, texts: Sequence[TokenIds], tokens: int) -> torch.Tensor:
        """Return the states of padded texts, (rows, width, d)."""
        width = padded_width(max(map(len, texts)))
        padded = torch.zeros(max(len(texts), tokens // width), width, dtype=torch.long)
        for row, ids in zip(padded, texts, strict=False):
            row[: len(ids)] = torch.as_tensor(ids)
        output = self.base(input_ids=padded.to(self.device), use_cache=False)
        states: torch.Tensor = output.last_hidden_state
        return states

    def without_prefix(self) -> PaddedForward:
        """Return this object: it has no prefix."""
        return self


class PackedForward:
    """Texts in one row, one after the other; after the prefix, where they begin with it.

    On CUDA a batch does not wait for the device.
    """

    # A guess between memory and full matrix products: not measured on a GPU yet.
    gpu_tokens = 8192

    def __init__(self, base: Any, layout: PackedLayout, prefix: SharedPrefix | None) -> None:
        self.base = base
        self.layout = layout
        self.prefix = prefix

    def length(self, text: TokenIds) -> int:
        """Return how many tokens are computed: those after the prefix, if it begins the text."""
        if self.prefix is not None and self.prefix.fits(text):
            return len(text) - len(self.prefix.ids)
        return len(text)

    def plan(
        self, lengths: Sequence[int], positions: Sequence[int], tokens: int
    ) -> list[FixedBatch]:
        """Return batches of one row each, which `plan_packed` fills with texts of any length."""
        return plan_packed(lengths, positions, tokens)

    def run(self, texts: Sequence[TokenIds], tokens: int) -> torch.Tensor:
        """Return the state at the last token of each text, (n, d)."""
        batch = self.layout.pack(texts, tokens, self.prefix)
        return self._states(batch)[batch.last]

    def run_all(self, texts: Sequence[TokenIds], tokens: int) -> list[torch.Tensor]:
        """Return the states of the tokens that `length` counts, (length, d) for each text."""
        lengths = [self.length(ids) for ids in texts]
        states = self._states(self.layout.pack(texts, tokens, self.prefix))
        return list(torch.split(states[: sum(lengths)], lengths))

    def _states(self, batch: PackedBatch) -> torch.Tensor:
        """Return the states of a batch, (tokens, d)."""
        output = self.base(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            packed=batch,
        )
        states: torch.Tensor = output.last_hidden_state[0]
        return states

    def without_prefix(self) -> PackedForward:
        """Return the same way without the prefix, which very long texts compute differently."""
        return PackedForward(self.base, self.layout, None)


def choose_forward(base: Any, prefix_ids: Sequence[int], device: str, location: str) -> ForwardPass:
    """Return the packed way if it gives the states of padded texts, else the padded one.

    With the prefix if that gives them too. `location`: the checkpoint, for the log.
    """
    padded = PaddedForward(base, device)
    probe: list[TokenIds] = []
    for token in PROBE_IDS:
        probe.append(range(token, 2 * token))
        following = range(token, token + 1 + token % 2)
        probe.append([*prefix_ids, *following])
    expected = torch.cat([padded.run([text], 0) for text in probe])
    name = type(base).__name__
    try:
        prefix = compute_prefix(base, prefix_ids, device) if prefix_ids else None
    except Exception as error:  # a model family may fail at anything
        log.debug("%s: no prefix: %s", location, error)
        prefix = None
    packed, problem = _find_packed_forward(base, prefix, device, probe, expected)
    if packed is None:
        log.info("%s: %s computes padded texts: %s", location, name, problem)
        return padded
    if prefix_ids and packed.prefix is None:
        log.info("%s: %s computes the prompt's beginning anew for each text", location, name)
    return packed


def _find_packed_forward(
    base: Any,
    prefix: SharedPrefix | None,
    device: str,
    probe: Sequence[TokenIds],
    expected: torch.Tensor,
) -> tuple[PackedForward | None, str]:
    """Return the packed way that gives the `expected` states, or None and why there is none.

    The model keeps its packed attention if there is one.
    """
    windows = layer_windows(base.config)
    if windows is None:
        return None, "it has other layers than those of an attention"
    tolerance = 1e-3 if base.dtype is torch.float32 else 0.1
    layout = PackedLayout(windows, base.dtype, device)
    before = base.config._attn_implementation
    problem = ""
    try:
        with quiet_loading():
            base.set_attn_implementation(ATTENTION)
        for candidate in (PackedForward(base, layout, prefix), PackedForward(base, layout, None)):
            states = candidate.run(probe, sum(map(len, probe)) + 1)
            distance = relative_distance(states.float(), expected.float())
            if distance <= tolerance:
                return candidate, ""
        problem = f"packed ones have other states (relative distance {distance:.2g})"
    except Exception as error:  # a model family may fail at anything
        problem = str(error).strip().partition("\n")[0] or type(error).__name__
    base.set_attn_implementation(before)
    return None, problem


def relative_distance(states: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the greatest distance of two rows, relative to the row's length; NaN if a state is.

    Each component is measured in its own mean magnitude: a few components of a decoder are a
    hundred times larger than the others, nearly equal for every text, and would hide all
    differences. (Tiny models in bfloat16: at most 0.015; with keys 2% off 0.015 to 0.3, 10% off
    0.06 to 0.9, with the keys of other tokens 1.3 and more.)
    """
    magnitude = expected.abs().mean(0).clamp(min=torch.finfo(torch.float32).tiny)
    distances = ((states - expected) / magnitude).norm(dim=1)
    lengths = (expected / magnitude).norm(dim=1)
    return float((distances / lengths).max())
