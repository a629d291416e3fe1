"""A tiny base model with a byte-level tokenizer, and conversations that it can learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.finetuning.examples import EncodedRow, LeftOut, encode_row
from deita_tasks.models.chat_tokenizer import Tokenization
from deita_tasks.results.training_data import chat_row
from tests.support.checkpoints import byte_level_tokenizer, write_model

END = "<|end_of_text|>"


def write_base(folder: Path, **tokens: Any) -> Path:
    """Write a tiny Llama of random weights and its tokenizer; `tokens` are its special tokens."""
    tokens = {"eos_token": END, **tokens}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer(bos=False), **tokens)
    write_model(
        folder,
        "Llama",
        vocabulary=len(tokenizer),
        max_position_embeddings=512,
        initializer_range=0.02,
    )
    (folder / "generation_config.json").unlink()
    tokenizer.save_pretrained(folder)
    return folder


def conversation(question: str, answer: str, row: int = 1) -> Conversation:
    turns = (Turn("user", question), Turn("assistant", answer))
    return Conversation(turns, SourceRow("pool.jsonl", row))


def encoded(rows: Sequence[Conversation], tokenization: Tokenization) -> list[EncodedRow | LeftOut]:
    return [encode_row(chat_row(row), tokenization.tokenizer) for row in rows]


def conversations(count: int) -> list[Conversation]:
    """`count` questions of a kind, with answers that follow from them."""
    return [
        conversation(f"Say {number} twice", f"{number} {number}", number)
        for number in range(1, count + 1)
    ]
