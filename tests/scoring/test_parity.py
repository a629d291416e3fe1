"""Held to what the original program computed (hkust-nlp/deita at b279f2c), where its outputs lie
beside the checkout.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deita_tasks.conversations import Conversation, Pair, Turn
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.tokenizer import load_tokenizer
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.causal_lm import CausalLMScorer
from deita_tasks.scoring.prompts import render

PARITY = Path(__file__).parents[2] / "../shared/parity"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(
        not PARITY.is_dir(), reason="the original program's outputs are not beside this checkout"
    ),
]

MODELS = {"complexity": "tiny-llama", "quality": "tiny-llama-quality"}


@pytest.fixture(scope="module")
def conversations():
    rows = json.loads((PARITY / "conversations.json").read_text())
    return [[turn["value"] for turn in row["conversations"]] for row in rows]


def original_pair(texts, turn):
    """Turns 2i and 2i + 1; "" where a last user turn has no answer, which we do not score."""
    instruction, response = [*texts, ""][2 * turn : 2 * turn + 2]
    return Pair(instruction, response)


def test_pairs_are_those_of_the_original_where_all_turns_are_answered(conversations):
    for texts in conversations:
        turns = [Turn(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]
        answered = range(len(texts) // 2)
        expected = [original_pair(texts, turn) for turn in answered]
        assert Conversation(tuple(turns)).pairs == expected


@pytest.mark.parametrize("kind", MODELS)
def test_as_the_original(conversations, kind):
    expected = pd.read_parquet(PARITY / "scores_llama.parquet").query("kind == @kind")
    folder = str(PARITY / MODELS[kind])
    pairs = [
        original_pair(conversations[sample], turn)
        for sample, turn in zip(expected["sample"], expected["turn"], strict=True)
    ]
    assert len(pairs) == 150

    tokenizer = load_tokenizer(find_checkpoint(folder))
    ids = [tokenizer.encode(render(kind, *pair).text).ids for pair in pairs]
    assert ids == [_list(row) for row in expected["input_ids"]]

    # The original cuts nothing, though the model's window is 2,048 tokens: three of the prompts are
    # longer.
    scorer = load_scorer(
        "causal_lm",
        model=folder,
        kind=kind,
        dtype="float32",
        max_length=4096,
    )
    assert isinstance(scorer, CausalLMScorer)
    np.testing.assert_allclose(scorer.score(pairs), expected["score"], atol=1e-4)
    model = scorer._model.get(scorer._load_model)
    logits = model.logits(model.last_hidden(ids)[0]).numpy()
    np.testing.assert_allclose(logits, [_list(row) for row in expected["logits"]], atol=1e-4)


def _list(value):
    return json.loads(value) if isinstance(value, str) else list(value)
