"""Held to what the original program computed (hkust-nlp/deita at b279f2c), where its outputs lie
beside the checkout.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.embedding import load_embedder
from deita_tasks.embedding.texts import join_turns
from deita_tasks.embedding.vicuna import render_vicuna
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.tokenizer import load_tokenizer

PARITY = Path(__file__).parents[2] / "../shared/parity"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(
        not PARITY.is_dir(), reason="the original program's outputs are not beside this checkout"
    ),
]

ROLES = {"human": "user", "gpt": "assistant"}

render_answers = partial(join_turns, text="answers", separator="\n")


@pytest.mark.parametrize("max_length", [2048, 512])
@pytest.mark.parametrize("text", ["template", "answer"])
def test_as_the_original(text, max_length):
    rows = json.loads((PARITY / "conversations.json").read_text())
    pool = [
        Conversation(
            tuple(Turn(ROLES[turn["from"]], turn["value"]) for turn in row["conversations"])
        )
        for row in rows
    ]
    expected = pd.read_parquet(PARITY / f"embeddings_llama_{text}_{max_length}.parquet")
    pool = [pool[sample] for sample in expected["sample"]]
    assert len(pool) == 100

    folder = str(PARITY / "tiny-llama")
    tokenizer = load_tokenizer(find_checkpoint(folder))
    render = render_answers if text == "answer" else render_vicuna
    ids = [tokenizer.encode(render(conversation)).ids[:max_length] for conversation in pool]
    assert ids == [_list(row) for row in expected["input_ids"]]

    vectors = np.array([_list(row) for row in expected["embedding"]])
    for batch_tokens in (1, 4096):
        options = {
            "model": folder,
            "text": "answers" if text == "answer" else "all",
            "max_length": max_length,
            "dtype": "float32",
        }
        embedder = load_embedder("causal_lm", **options, batch_tokens=batch_tokens)
        np.testing.assert_allclose(embedder.embed(pool), vectors, atol=1e-4)


def _list(value):
    return json.loads(value) if isinstance(value, str) else list(value)
