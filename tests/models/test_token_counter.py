"""Tokens under a chat template."""

from __future__ import annotations

from pathlib import Path

import pytest

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.errors import UsageError
from deita_tasks.models.token_counter import RowTokens, TokenCounter
from tests.support.tiny_base import write_base

WHY = Conversation((Turn("user", "Why is it so?"), Turn("assistant", "Because.")))
TOOL = Conversation((Turn("user", "Why?"), Turn("tool", "{}"), Turn("assistant", "So.")))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_base(tmp_path_factory.mktemp("base")))


def test_the_tokens_are_those_of_the_text(base: str) -> None:
    """What chatml writes, by hand."""
    counter = TokenCounter(model=base, chat_template="chatml")
    tokenizer = counter.tokenization.tokenizer

    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    before = "<|im_start|>user\nWhy is it so?<|im_end|>\n<|im_start|>assistant\n"
    (counted,) = counter.count([WHY])
    assert isinstance(counted, RowTokens)
    assert counted.before_answer == tokens(before)
    assert counted.tokens >= tokens(f"{before}Because.<|im_end|>")


def test_a_row_that_the_template_cannot_show_says_why(base: str) -> None:
    shown, refused = TokenCounter(model=base, chat_template="vicuna").count([WHY, TOOL])
    assert isinstance(shown, RowTokens)
    assert isinstance(refused, str)
    assert "has no role tool" in refused


def test_the_same_tokenizer_elsewhere_counts_the_same(base: str, tmp_path: Path) -> None:
    """The weights, and where the files are, do not matter; the template does."""
    elsewhere = str(write_base(tmp_path / "other"))
    (tmp_path / "other" / "model.safetensors").unlink()
    fingerprint = TokenCounter(model=base).fingerprint()
    assert TokenCounter(model=elsewhere).fingerprint() == fingerprint
    assert TokenCounter(model=base, chat_template="chatml").fingerprint() != fingerprint


def test_no_tokenizer_is_an_error() -> None:
    with pytest.raises(UsageError, match="no such folder"):
        TokenCounter(model="nowhere").fingerprint()
