"""What a model makes of texts that it was not trained on: their loss, and which answer it prefers.

Rows go through the model one at a time, so that no value depends on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from deita_tasks.errors import ComputeError
from deita_tasks.finetuning.base_model import load_model
from deita_tasks.finetuning.examples import Example
from deita_tasks.finetuning.preferences import EncodedPreference
from deita_tasks.measuring.scores import HeldOutLoss, PreferenceLosses
from deita_tasks.models.chat import IGNORED, Encoded
from deita_tasks.models.stopping import raise_if_stopped

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 256  # of an answer to a prompt


class RowLoss(NamedTuple):
    """The negative log-probability of a row's answers, in nats, over so many tokens."""

    total: float
    tokens: int


class Evaluator:
    """A model that is only read. folder: of this machine. device: cpu or cuda."""

    def __init__(self, folder: str, device: str) -> None:
        self.model: PreTrainedModel = load_model(folder, None, "float32").to(device).eval()
        self.device = device

    def held_out_loss(self, examples: Sequence[Example]) -> HeldOutLoss:
        """Return the loss of each row.

        Sums over the tokens of a row's answers, in nats, in the order of the examples. Raises
        ComputeError if a loss is not a number.
        """
        losses = [self._loss(example.encoded) for example in examples]
        return HeldOutLoss(
            ids=[example.id for example in examples],
            total=[loss.total for loss in losses],
            tokens=[loss.tokens for loss in losses],
        )

    def preference_losses(self, pairs: Sequence[EncodedPreference]) -> PreferenceLosses:
        """Return the loss of both answers of each pair.

        Sums over the tokens of each answer, in nats, in the order of the pairs. Raises ComputeError
        if a loss is not a number.
        """
        chosen = [self._loss(pair.chosen) for pair in pairs]
        rejected = [self._loss(pair.rejected) for pair in pairs]
        return PreferenceLosses(
            ids=[pair.id for pair in pairs],
            chosen=[loss.total for loss in chosen],
            chosen_tokens=[loss.tokens for loss in chosen],
            rejected=[loss.total for loss in rejected],
            rejected_tokens=[loss.tokens for loss in rejected],
        )

    def _loss(self, row: Encoded) -> RowLoss:
        """Return the loss of a row, summed in float64.

        The logits at a token predict the next: labels move by one. Raises ComputeError for NaN.
        """
        import torch

        raise_if_stopped()
        with torch.no_grad():
            ids = torch.tensor([row.input_ids], device=self.device)
            logits = self.model(input_ids=ids).logits[0, :-1].float()
            labels = torch.tensor(row.labels[1:], device=self.device)
            losses = _cross_entropy(logits, labels)
        total = float(losses.double().sum())
        if total != total:
            raise ComputeError("the model's loss on a held-out row is not a number")
        return RowLoss(total, int((labels != IGNORED).sum()))

    def answers(
        self, tokenizer: PreTrainedTokenizerBase, prompts: Iterable[Sequence[dict[str, str]]]
    ) -> list[str]:
        """Return the model's most probable answer to each prompt, word by word (greedy).

        At most MAX_NEW_TOKENS tokens each, in the order of the prompts, which are chat messages.
        """
        return [self._answer(tokenizer, prompt) for prompt in prompts]

    def _answer(self, tokenizer: Any, prompt: Sequence[dict[str, str]]) -> str:
        """Return an answer of at most MAX_NEW_TOKENS tokens, without the special ones."""
        import torch

        raise_if_stopped()
        encoded = tokenizer.apply_chat_template(
            list(prompt), add_generation_prompt=True, return_dict=True, return_tensors="pt"
        ).to(self.device)
        model: Any = self.model
        with torch.no_grad():
            output = model.generate(
                **encoded,
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        new = output[0, encoded["input_ids"].shape[1] :]
        return str(tokenizer.decode(new, skip_special_tokens=True)).strip()


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss of each label, 0 where it is IGNORED: float32 (t,)."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
