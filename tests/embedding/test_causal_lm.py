"""Vectors held to a plain reference: one text at a time, the whole model's last hidden states, the
row of the last token.
"""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.embedding import load_embedder
from deita_tasks.embedding.texts import join_turns
from deita_tasks.embedding.vicuna import render_vicuna
from deita_tasks.errors import ComputeError, UsageError
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.forward import PackedForward
from deita_tasks.models.prefetch import prefetch
from tests.support.checkpoints import FAMILIES, llama, qwen2, reference_ids, reference_model

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)

render_answers = partial(join_turns, text="answers", separator="\n")


def talk(*turns):
    roles = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    return Conversation(tuple(Turn(roles[role], content) for role, content in turns))


POOL = [
    talk(("u", "Sort a list in Python."), ("a", "```python\n    sorted(x)  # {x}\n```")),
    talk(("u", "Hi"), ("a", "Hello"), ("u", "日本語 👍🏽"), ("a", "はい")),
    talk(("u", "No answer yet")),
    talk(("u", "")),
    talk(("u", "Write a poem. " * 10), ("a", "The sea. " * 12)),
]
# FastChat's vicuna_v1.1, written out.
TEXTS = [
    SYSTEM + "USER: Sort a list in Python. ASSISTANT: ```python\n    sorted(x)  # {x}\n```</s>",
    SYSTEM + "USER: Hi ASSISTANT: Hello</s>USER: 日本語 👍🏽 ASSISTANT: はい</s>",
    SYSTEM + "USER: No answer yet ",
    SYSTEM + "USER:",
    SYSTEM + "USER: " + "Write a poem. " * 10 + " ASSISTANT: " + "The sea. " * 12 + "</s>",
]


def test_vicuna_v1_1():
    assert [render_vicuna(conversation) for conversation in POOL] == TEXTS


@pytest.mark.parametrize(
    ("turns", "text"),
    [
        # The first two as the original, which begins with the user; with the others it fails.
        ([("a", "Welcome!"), ("u", "Hi"), ("a", "Yes?")], SYSTEM + "USER: Hi ASSISTANT: Yes?</s>"),
        ([("u", "Hi"), ("a", ""), ("u", "Hello?")], SYSTEM + "USER: Hi ASSISTANT:USER: Hello? "),
        (
            [("s", "Be brief."), ("u", "Hi"), ("a", "Yes?")],
            "Be brief. USER: Hi ASSISTANT: Yes?</s>",
        ),
        ([("s", "Be brief."), ("a", "Welcome!"), ("u", "Hi")], "Be brief. USER: Hi "),
        (
            [("u", "Weather?"), ("a", "get()"), ("t", "sun"), ("a", "Sunny.")],
            SYSTEM + "USER: Weather? ASSISTANT: get()</s>TOOL: sun ASSISTANT: Sunny.</s>",
        ),
        (
            [("u", "One."), ("u", "Two."), ("s", "Note."), ("a", "Three.")],
            SYSTEM + "USER: One. USER: Two. SYSTEM: Note. ASSISTANT: Three.</s>",
        ),
    ],
)
def test_vicuna_of_other_conversations(turns, text):
    assert render_vicuna(talk(*turns)) == text


def test_answers():
    assert render_answers(POOL[1]) == "Hello\nはい"
    assert render_answers(POOL[2]) == ""
    assert (
        render_answers(
            talk(("s", "x"), ("a", "Welcome!"), ("u", "a"), ("a", "b"), ("t", "c"), ("a", "d"))
        )
        == "b\nd"
    )


def embedder(folder, **options):
    return load_embedder(
        "causal_lm", model=str(folder), **{"dtype": "float32", "device": "cpu", **options}
    )


def reference(folder, texts, max_length=2048):
    model = reference_model(folder)
    vectors = []
    for text in texts:
        with torch.no_grad():
            output = model(
                torch.tensor([plain_ids(folder, text)[:max_length]]), output_hidden_states=True
            )
        vectors.append(output.hidden_states[-1][0, -1].numpy())
    return np.array(vectors)


def plain_ids(folder, text):
    """`</s>` written in a text is the end token in LLaMA's and Mistral's tokenizers, and what
    follows starts anew.
    """
    if not (folder / "tokenizer.model").exists():
        return reference_ids(folder, text)
    ids = [1]
    for i, part in enumerate(text.split("</s>")):
        ids += ([2] if i else []) + (reference_ids(folder, part)[1:] if part else [])
    return ids


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("llama"))


def test_vectors_are_the_reference_s_in_every_batch(family):
    expected = reference(family, TEXTS)
    assert np.linalg.norm(expected[0] - expected[1]) > 0.5
    for batch_tokens in (1, 400, 100_000):
        vectors = embedder(family, batch_tokens=batch_tokens).embed(POOL)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(embedder(family).embed(POOL[::-1])[::-1], expected, atol=1e-5)


def test_more_conversations_than_are_tokenised_at_a_time(folder):
    causal_lm = embedder(folder, max_length=60)
    few, repeated = causal_lm.compute(POOL), causal_lm.compute(POOL * 250)
    np.testing.assert_allclose(
        repeated.values, np.tile(few.values, (250, 1)), rtol=0, atol=1e-5
    )  # another piece, other batches
    np.testing.assert_array_equal(repeated.truncated_tokens, np.tile(few.truncated_tokens, 250))


def test_a_problem_belongs_to_its_own_conversation_whatever_its_piece(folder, monkeypatch):
    run, longest = PackedForward.run, len(plain_ids(folder, TEXTS[4]))

    def never_the_longest(self, texts, tokens):
        if max(map(len, texts)) >= longest:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, texts, tokens)

    expected = embedder(folder).embed(POOL)
    monkeypatch.setattr("deita_tasks.models.component.prefetch", partial(prefetch, size=2))
    monkeypatch.setattr(PackedForward, "run", never_the_longest)
    measured = embedder(folder).compute(POOL)
    assert (
        list(measured.problems) == [4] and f"even alone: {longest} tokens" in measured.problems[4]
    )
    assert np.isnan(measured.values[4]).all()
    np.testing.assert_allclose(measured.values[:4], expected[:4], atol=1e-5)


def test_the_system_prompt_is_computed_once(folder):
    causal_lm = embedder(folder)
    causal_lm.embed(POOL[:1])
    prefix = causal_lm._model.get(causal_lm._load_model).prefix
    assert len(prefix.ids) >= len(reference_ids(folder, SYSTEM + "USER:")) - 2
    assert all(prefix.fits(plain_ids(folder, text)) for text in TEXTS[:3])
    assert embedder(folder, max_length=12)._load_model().prefix.ids == prefix.ids[:10]
    assert embedder(folder, text="answers")._load_model().prefix is None


def test_the_norm_is_the_model_s_not_one(folder):
    assert (np.abs(np.linalg.norm(embedder(folder).embed(POOL), axis=1) - 1) > 0.1).all()


@pytest.mark.parametrize(
    "tokens",
    [
        {"pad_token": "</s>"},
        {"pad_token": "<unk>"},
        {"pad_token": None},
        {"pad_token": "</s>", "padding_side": "left"},
    ],
    ids=["pad = eos", "pad = unk", "no pad", "left"],
)
def test_neither_the_padding_token_nor_its_side_matters(folder, tmp_path, tokens):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, **tokens}))
    model_config = json.loads((tmp_path / "config.json").read_text())
    model_config["pad_token_id"] = {"</s>": 2, "<unk>": 0, None: None}[tokens["pad_token"]]
    (tmp_path / "config.json").write_text(json.dumps(model_config))
    # The original finds padding by the token, and so takes an unknown token or an end of turn
    # inside a text for padding.
    texts = [talk(("u", "<unk> is not padding"), ("a", "nor is </s> this")), *POOL]
    np.testing.assert_allclose(
        embedder(tmp_path).embed(texts)[1:], reference(folder, TEXTS), atol=1e-5
    )
    np.testing.assert_array_equal(embedder(tmp_path).embed(texts), embedder(folder).embed(texts))


@pytest.mark.parametrize("max_length", [40, 100])
def test_the_end_of_a_long_text_is_left_out_and_counted(folder, max_length):
    lengths = [len(plain_ids(folder, text)) for text in TEXTS]
    measured = embedder(folder, max_length=max_length).compute(POOL)
    assert measured.truncated_tokens.tolist() == [max(0, length - max_length) for length in lengths]
    assert measured.truncated_tokens.any()
    np.testing.assert_allclose(measured.values, reference(folder, TEXTS, max_length), atol=1e-5)


def test_answers_alone(folder):
    texts = ["```python\n    sorted(x)  # {x}\n```", "Hello\nはい", "", "", "The sea. " * 12]
    np.testing.assert_allclose(
        embedder(folder, text="answers").embed(POOL), reference(folder, texts), atol=1e-5
    )


def test_instructions_alone(folder):
    texts = [
        "\n".join(turn.content for turn in conversation.turns if turn.role == "user")
        for conversation in POOL
    ]
    np.testing.assert_allclose(
        embedder(folder, text="instructions").embed(POOL), reference(folder, texts), atol=1e-5
    )


def test_a_text_without_any_token_has_no_vector(tmp_path):
    qwen2(tmp_path)  # puts no token in front of a text
    measured = embedder(tmp_path, text="answers").compute(POOL)
    assert set(measured.problems) == {2, 3} and "no token" in measured.problems[2]
    assert np.isnan(measured.values[[2, 3]]).all() and np.isfinite(measured.values[[0, 1, 4]]).all()
    with pytest.raises(ComputeError, match=POOL[2].id):
        embedder(tmp_path, text="answers").embed(POOL)


def test_fingerprint(folder, monkeypatch):
    monkeypatch.setattr(CausalLM, "__init__", lambda *_, **__: pytest.fail("weights were loaded"))
    base = embedder(folder).fingerprint()
    assert json.loads(json.dumps(base)) == base
    assert embedder(folder, batch_tokens=3).fingerprint() == base
    for changed in (
        {"text": "answers"},
        {"text": "instructions"},
        {"max_length": 512},
        {"dtype": "bfloat16"},
    ):
        assert embedder(folder, **changed).fingerprint() != base


def test_nothing_to_embed(folder):
    assert embedder(folder).compute([]).values.shape == (0, 32)


@pytest.mark.parametrize(
    "wrong", [{"text": "answer"}, {"max_length": 1}, {"dtype": "fp32"}, {"model": ""}]
)
def test_wrong_options(wrong):
    with pytest.raises(UsageError):
        load_embedder("causal_lm", **{"model": "x/y", **wrong})
