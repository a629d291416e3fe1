"""The base class of embedders."""

from __future__ import annotations

import inspect

import pytest

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.embedding import base, load_embedder
from deita_tasks.errors import UsageError
from tests.support.docstrings import run_example


def test_the_example_in_the_docstring_is_an_embedder() -> None:
    names = run_example(inspect.getdoc(base.Embedder), base)
    embedder = names["LetterCounts"](letters="ab")
    rows = [Conversation((Turn("user", "abba"),)), Conversation((Turn("user", "c"),))]
    assert embedder.embed(rows).tolist() == [[2, 2], [0, 0]]
    assert embedder.embed([]).shape == (0, 2)
    assert embedder.fingerprint()["letters"] == "ab"


def test_unknown_embedders_are_named() -> None:
    with pytest.raises(UsageError, match=r"unknown embedder 'causal'.*did you mean 'causal_lm'"):
        load_embedder("causal")
