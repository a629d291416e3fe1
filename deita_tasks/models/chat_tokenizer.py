"""A model's tokenizer with a chat template, to train with or to count tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deita_tasks.errors import ModelError
from deita_tasks.models.chat_templates import set_template
from deita_tasks.models.checkpoint import Checkpoint, find_checkpoint
from deita_tasks.strict_json import JsonRecord

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class BaseName(JsonRecord):
    """Which model to start from, as the parameters name it.

    revision: of a hub id, pinned to a commit. chat_template: see `set_template`.
    """

    model: str
    revision: str | None = None
    chat_template: str | None = None
    default_template: str = "vicuna"

    def checkpoint(self) -> Checkpoint:
        """Return its files. Raises UsageError or ModelError if there are none."""
        return find_checkpoint(self.model, self.revision)


@dataclass(frozen=True)
class Tokenization:
    """A tokenizer that is ready to train with.

    template: the name of its chat template. remedies: what was missing, and what stands in.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str
    remedies: list[str]


def load_tokenizer(base: BaseName) -> Tokenization:
    """Return the tokenizer of a base model, with a chat template and a token for padding.

    A base without a padding token pads with its unknown token, else with its end token: labels and
    attention leave padding out by position, so it teaches nothing. Raises ModelError for a base
    without a usable tokenizer, without a token that ends a text, or without a usable template.
    """
    from transformers import AutoTokenizer

    checkpoint = base.checkpoint()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.location, revision=checkpoint.revision, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(
            f"{base.model}: has no usable tokenizer ({_first_line(error)}); expected the files of "
            "one in the checkpoint"
        ) from error
    if tokenizer.eos_token is None:
        raise ModelError(
            f"{base.model}: its tokenizer has no token that ends a text; set eos_token in its "
            "tokenizer_config.json"
        )
    template = set_template(tokenizer, base.chat_template, base.default_template)
    remedies = []
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        remedies.append(f"the base model has no padding token: {tokenizer.pad_token} pads")
    return Tokenization(tokenizer, template, remedies)


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type's name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
