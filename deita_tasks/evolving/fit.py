"""A scorer's training rows: its prompt and one digit, with loss on the digit alone.

The prompt is that of scoring/prompts.py, tokenized as `causal_lm` will tokenize it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deita_tasks.conversations import SourceRow
from deita_tasks.errors import UsageError
from deita_tasks.finetuning.base_model import load_model
from deita_tasks.finetuning.examples import EncodedRow, LeftOut
from deita_tasks.finetuning.job import LEFT_OUT_FILE, TrainedModel, copy_files
from deita_tasks.finetuning.trained import local_model, model_uri
from deita_tasks.models.chat import IGNORED, Encoded
from deita_tasks.models.chat_tokenizer import BaseName
from deita_tasks.models.quiet import quiet_loading
from deita_tasks.records import ScoreKind
from deita_tasks.scoring.prompt_encoder import PromptEncoder

DIGIT_TOKENS = 1


def scorer_encoder(kind: ScoreKind, base: BaseName, max_length: int) -> PromptEncoder:
    """Return the encoder of the prompts to train on, which leaves room for the digit.

    Raises ModelError if a digit is not one token of its own after the prompt, UsageError if the
    base model's window is shorter than the recipe's.
    """
    checkpoint = base.checkpoint()
    window = checkpoint.limit(None)
    if max_length > window:
        raise UsageError(
            f"max_length = {max_length:,}: {base.model} reads {window:,} tokens; set max_length to "
            "that or less"
        )
    return PromptEncoder.for_checkpoint(kind, checkpoint, max_length - DIGIT_TOKENS)


def encode_scored(
    encoder: PromptEncoder,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    scores: Sequence[int],
) -> list[EncodedRow | LeftOut]:
    """Return scored pairs as training rows; one that does not fit the window is left out."""
    rows: list[EncodedRow | LeftOut] = []
    for name, prompt, score in zip(names, encoder.tokenize(pairs), scores, strict=True):
        source = SourceRow("", 0)
        if not prompt.ids:
            rows.append(LeftOut(source, name, encoder.too_long_problem()))
            continue
        digit = encoder.digits[score - 1]
        labels = [IGNORED] * len(prompt.ids) + [digit]
        rows.append(EncodedRow(name, source, Encoded([*prompt.ids, digit], labels)))
    return rows


def write_scorer(folder: Path, model: TrainedModel, store: str, encoder: PromptEncoder) -> None:
    """Write a trained model as a checkpoint that `causal_lm` takes.

    An adapter is merged into its base. The tokenizer.json is the tokenizer of the training, so that
    a prompt has the same tokens again: transformers saves some LLaMA tokenizers changed.
    """
    uri = model_uri(store, model.address)
    skipped = {LEFT_OUT_FILE, "chat_template.jinja"}
    if model.is_adapter:
        with local_model(uri) as adapter, quiet_loading():
            loaded = load_model(adapter, None, "float32")
            loaded.merge_and_unload().save_pretrained(folder)  # type: ignore[operator]
        skipped |= {name for name in model.files if name.startswith("adapter_")}
    copy_files(uri, str(folder), [name for name in model.files if name not in skipped])
    encoder.tokenizer.save(str(folder / "tokenizer.json"))
