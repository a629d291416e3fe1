"""Compiled norms and MLPs: the same states, to the bit in every batch, and one compilation."""

import shutil

import numpy as np
import pytest
import torch

from deita_tasks.models import causal_lm
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.scoring import load_scorer
from tests.support.checkpoints import llama, write_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU"),
]

RNG = np.random.default_rng(0)
TEXTS = [RNG.integers(3, 90, length).tolist() for length in (5, 40, 300, 700, 1, 1500)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_model(folder)
    return folder


def load(folder, **options):
    return CausalLM(find_checkpoint(str(folder)), dtype="float32", device="cpu", **options)


def test_states_are_those_of_the_modules_as_written(folder):
    from torch._dynamo.utils import counters

    plain, compiled = load(folder), load(folder, compiled=True)
    expected, _ = plain.last_hidden(TEXTS)
    counters.clear()
    states, _ = compiled.last_hidden(TEXTS)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)
    order = RNG.permutation(len(TEXTS))
    again, _ = compiled.last_hidden([TEXTS[i] for i in order])
    assert torch.equal(again, states[order])
    alone = torch.cat([compiled.last_hidden([text])[0] for text in TEXTS])
    assert torch.equal(alone, states)
    assert not counters["frames"], "nothing is compiled after the model is loaded"


def test_it_is_part_of_the_fingerprint_and_said_in_the_log(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(causal_lm.log, "info", lambda text, *values: lines.append(text % values))
    options = {"model": str(llama(tmp_path)), "kind": "quality", "dtype": "float32"}
    plain = load_scorer("causal_lm", **options, device="cpu")
    compiled = load_scorer("causal_lm", **options, device="cpu", compile=True)
    assert compiled.fingerprint() == {**plain.fingerprint(), "compiled": True}
    pairs = [("What is a tide?", "The sea rises."), ("Why?", "The moon.")]
    np.testing.assert_allclose(compiled.score(pairs), plain.score(pairs), atol=1e-5)
    assert any("compiled LlamaMLP, LlamaRMSNorm for 1024 tokens" in line for line in lines)
