"""A tiny base model, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("trl", reason="the extra train is not installed")

from deita_tasks.models.chat_tokenizer import BaseName, Tokenization, load_tokenizer
from tests.support.tiny_base import write_base


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def base(base_folder: Path, offline: None) -> BaseName:
    return BaseName(model=str(base_folder))


@pytest.fixture
def tokenization(base: BaseName) -> Tokenization:
    return load_tokenizer(base)
