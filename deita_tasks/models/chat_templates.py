"""How a conversation becomes text, and which of it the assistant says.

A chat template marks the assistant's words by {% generation %}; only what stands there is trained
on. Many published templates lack the mark. TRL has marked versions of the common ones; for any
other base, vicuna (the paper's) and chatml come with this package.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from deita_tasks.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUILT_IN = ("vicuna", "chatml")
OWN = "own"
ADVICE = "choose one that comes with this package: --chat-template vicuna or chatml"


def read_template(name: str) -> str:
    """Return the text of a template that comes with this package. `name`: one of BUILT_IN."""
    folder = resources.files("deita_tasks.models") / "templates"
    return (folder / f"{name}.jinja").read_text(encoding="utf-8").strip()


def set_template(tokenizer: PreTrainedTokenizerBase, choice: str | None, default: str) -> str:
    """Give `tokenizer` a template that marks the answers; return its name.

    choice: one of BUILT_IN, "own" for the base model's, or None: the base model's if it has one,
    else `default`. Raises ModelError for a base without a template, or with one that has no mark
    and that TRL does not know.
    """
    if choice is None:
        choice = OWN if tokenizer.chat_template else default
    if choice in BUILT_IN:
        tokenizer.chat_template = read_template(choice)
        return choice
    if not tokenizer.chat_template:
        raise ModelError(f"{tokenizer.name_or_path}: has no chat template; {ADVICE}")
    tokenizer.chat_template = _marked(tokenizer)
    return OWN


def _marked(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the tokenizer's own template, in TRL's version if it does not mark the answers."""
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template["default"]
    if has_generation_markers(template):
        return str(template)
    try:
        return str(get_training_chat_template(tokenizer) or template)
    except ValueError:
        raise ModelError(
            f"{tokenizer.name_or_path}: its chat template does not mark the assistant's words "
            "({% generation %}), and TRL has no version of it that does, so the loss could not be "
            f"limited to them; add the mark, or {ADVICE}"
        ) from None
