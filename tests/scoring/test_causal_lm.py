"""Scores held to a plain reference, written here: one prompt at a time, the whole model, its logits
at the last position.
"""

import json
import pickle
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, normalizers

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.errors import ComputeError, ModelError, UsageError
from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.forward import PackedForward
from deita_tasks.models.prefetch import prefetch
from deita_tasks.scoring import load_scorer
from tests.support.checkpoints import (
    FAMILIES,
    GPT2_PATTERN,
    byte_level_tokenizer,
    llama,
    llama3,
    poison,
    reference_ids,
    reference_model,
    write_model,
    write_sentencepiece,
)

# To the byte, from the original's llama_scorer.py.
COMPLEXITY = (
    "You are a helpful assistant. Please identify the complexity score of the following user "
    "query. \n##Query: {}  \n##Complexity: "
)
QUALITY = (
    "You are a helpful assistant. Please identify the quality score of the Response "
    "corresponding to the Question. "
    "\n #Question#:\n{}\n#Response#:\n{} \n##Quality: "
)
PAIRS = [
    ("Write a poem about the sea.", "The sea is old,\nthe sand is cold."),
    ("", ""),
    ("def f(x):\n    if x  > 1:\n\t\treturn   {x}", "```python\n{instruction} {0}\n```"),
    ("日本語 👍🏽 cafe\u0301", "naïve — ﬁ №"),
    ("Sort it. " * 4, "1 2 3 4 5 6 12 42"),
    (" leading and trailing  ", ""),
]


def text_of(kind, pair):
    return COMPLEXITY.format(pair[0]) if kind == "complexity" else QUALITY.format(*pair)


def reference_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].double()


def reference_score(model, ids, digits):
    logits = reference_logits(model, ids)[digits]
    return float((logits.softmax(0) * torch.arange(1, 7)).sum())


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("llama"))


def scorer(folder, kind="quality", **options):
    return load_scorer(
        "causal_lm",
        model=str(folder),
        kind=kind,
        **{"dtype": "float32", "device": "cpu", **options},
    )


@pytest.mark.parametrize("kind", ["complexity", "quality"])
def test_scores_are_the_reference_s_in_every_batch(family, kind):
    model = reference_model(family)
    # Each digit's id found the plain way: what comes after the prompt when the digit is written
    # there.
    digits = [reference_ids(family, text_of(kind, ("x", "y")) + digit)[-1] for digit in "123456"]
    expected = [
        reference_score(model, reference_ids(family, text_of(kind, pair)), digits) for pair in PAIRS
    ]
    assert np.ptp(expected) > 0.3  # else equal scores would pass for right ones
    for batch_tokens in (1, 150, 100_000):
        scores = scorer(family, kind, batch_tokens=batch_tokens).score(PAIRS)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, atol=1e-5)
    backwards = scorer(family, kind).score(PAIRS[::-1])
    np.testing.assert_allclose(backwards[::-1], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["complexity", "quality"])
def test_the_template_s_beginning_is_computed_once(family, kind):
    prefix = list(scorer(family, kind)._load_model().prefix.ids)
    beginning = text_of(kind, ("\0", "")).split("\0")[0]
    assert (
        len(prefix) >= len(reference_ids(family, beginning)) - 2
    )  # the last may belong to the word after it
    assert reference_ids(family, text_of(kind, PAIRS[0]))[: len(prefix)] == prefix


def test_more_pairs_than_are_tokenised_at_a_time(folder):
    causal_lm = scorer(folder)
    np.testing.assert_allclose(
        causal_lm.score(PAIRS * 250), np.tile(causal_lm.score(PAIRS), 250), rtol=0, atol=1e-5
    )  # other pieces, other batches


def test_bfloat16_is_near(folder):
    np.testing.assert_allclose(
        scorer(folder, dtype="bfloat16").score(PAIRS), scorer(folder).score(PAIRS), atol=0.25
    )


def test_a_leading_system_turn_does_not_shift_the_pairs(folder):
    """The original pairs by position, and would score ("Be brief.", "Hi") here; the pair is ("Hi",
    "Hello!").
    """
    conversation = Conversation(
        (
            Turn("system", "Be brief."),
            Turn("user", "Hi"),
            Turn("assistant", "Hello!"),
            Turn("user", "Bye"),
            Turn("assistant", "See you."),
        )
    )
    scores = scorer(folder).score(conversation.pairs)
    np.testing.assert_array_equal(
        scores, scorer(folder).score([("Hi", "Hello!"), ("Bye", "See you.")])
    )
    assert abs(scores[0] - scorer(folder).score([("Be brief.", "Hi")])[0]) > 1e-3


# ---- length


def words(n, letter):
    return " ".join(letter * 2 for _ in range(n))


def cut_by_hand(folder, kind, pair, limit):
    """The ids of each part, the middle left out of the response first: an independent account of
    the rule, for a tokenizer in which the parts do not run into each other (each line of the
    template ends in a newline or a space).
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids  # noqa: E731
    head, between, tail = (
        text_of(kind, ("\0", "\1")).replace("\1", "\0").split("\0")
        if kind == "quality"
        else (None, None, None)
    )
    instruction, response = encode(pair[0]), encode(pair[1])
    frame = (
        [tokenizer.token_to_id("<|begin_of_text|>"), *encode(head)],
        encode(between),
        encode(tail),
    )
    room = limit - sum(map(len, frame))
    keep_response = max(0, room - len(instruction))
    keep_instruction = min(len(instruction), room)

    def middle(ids, keep):
        return ids if keep >= len(ids) else ids[: (keep + 1) // 2] + ids[len(ids) - keep // 2 :]

    return [
        *frame[0],
        *middle(instruction, keep_instruction),
        *frame[1],
        *middle(response, keep_response),
        *frame[2],
    ]


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    return llama3(tmp_path_factory.mktemp("llama3"))


@pytest.mark.parametrize(
    ("instruction", "response"), [(3, 400), (60, 300), (300, 20), (400, 400), (300, 0)]
)
def test_long_prompts_lose_the_middle_of_the_response_then_of_the_instruction(
    fast, instruction, response
):
    pair = (words(instruction, "s"), words(response, "r"))
    whole = len(reference_ids(fast, text_of("quality", pair)))
    limit = 180
    ids = cut_by_hand(fast, "quality", pair, limit)
    assert len(ids) == limit
    measured = scorer(fast, max_length=limit).compute([pair, ("short", "one")])
    assert measured.truncated_tokens.tolist() == [whole - limit, 0]
    digits = scorer(fast).fingerprint()["digit_ids"]
    np.testing.assert_allclose(
        measured.values[0], reference_score(reference_model(fast), ids, digits), atol=1e-5
    )


def test_the_limit_is_the_model_s_own_unless_given(folder):
    pair = (words(10, "s"), words(300, "r"))
    tokens = len(reference_ids(folder, text_of("quality", pair)))
    assert scorer(folder).fingerprint()["max_length"] == 256
    assert scorer(folder).compute([pair]).truncated_tokens.tolist() == [tokens - 256]
    longer = scorer(
        folder, max_length=4096
    )  # rotary positions go on beyond the window; the original never cuts
    assert longer.compute([pair]).truncated_tokens.tolist() == [0]
    digits = longer.fingerprint()["digit_ids"]
    expected = reference_score(
        reference_model(folder), reference_ids(folder, text_of("quality", pair)), digits
    )
    np.testing.assert_allclose(longer.score([pair]), [expected], atol=1e-4)


def test_a_limit_without_room_for_the_prompt_itself(folder):
    with pytest.raises(
        UsageError, match=r"max_length=20: the quality prompt alone takes \d+ tokens"
    ):
        scorer(folder, max_length=20).fingerprint()


def test_learned_positions_end_where_they_end(tmp_path, fast):
    write_model(
        tmp_path,
        "OPT",
        max_position_embeddings=128,
        ffn_dim=48,
        word_embed_proj_dim=32,
        vocabulary=700,
    )
    shutil.copy(fast / "tokenizer.json", tmp_path)
    assert scorer(tmp_path).fingerprint()["max_length"] == 128
    assert np.isfinite(scorer(tmp_path).score([("long " * 500, "long " * 500)])).all()
    with pytest.raises(UsageError, match="positions for 128 tokens"):
        scorer(tmp_path, max_length=129).fingerprint()


@pytest.mark.parametrize("spare", range(1, 8))
def test_hardly_any_room_is_a_problem_of_the_row_or_none(folder, spare):
    least = len(reference_ids(folder, QUALITY.format("", "")))
    measured = scorer(folder, max_length=least + spare).compute(
        [("a b c d e f g h", "i j k l m n o p q"), ("", "")]
    )
    assert set(measured.problems) <= {0}
    assert np.isnan(measured.values[0]) == (0 in measured.problems)
    assert np.isfinite(measured.values[1])


# ---- what must end in a clear error, or a row without a score


def test_nan_logits_are_that_pair_s_problem_alone(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    poison(broken, "Ω")  # its last byte is in no other text here
    pairs = [("a", "b"), ("Ω", "b"), ("c", "d")]
    measured = scorer(broken).compute(pairs)
    assert list(measured.problems) == [1] and "not finite" in measured.problems[1]
    assert np.isnan(measured.values[1])
    np.testing.assert_allclose(
        measured.values[[0, 2]], scorer(folder).score([pairs[0], pairs[2]]), atol=1e-5
    )
    with pytest.raises(ComputeError, match="pair 1 has no quality score"):
        scorer(broken).score(pairs)


def test_a_checkpoint_without_lm_head(tmp_path):
    write_sentencepiece(tmp_path)
    write_model(tmp_path, head=False)
    with pytest.raises(ModelError, match=r"no weights for lm_head\.weight"):
        scorer(tmp_path).score([("a", "b")])


def test_a_tokenizer_that_splits_digits(tmp_path, fast):
    shutil.copytree(fast, tmp_path, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(fast / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Replace("4", "four")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match="does not give '4' a token of its own"):
        scorer(tmp_path).fingerprint()


def test_a_tokenizer_that_merges_the_digit_with_the_space_before_it(tmp_path, fast):
    shutil.copytree(fast, tmp_path, dirs_exist_ok=True)
    byte_level_tokenizer(GPT2_PATTERN).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match="a token of its own"):
        scorer(tmp_path).score([("a", "b")])


def test_a_tokenizer_that_ends_every_text(tmp_path, folder):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"add_bos_token": True, "add_eos_token": True})
    )
    with pytest.raises(ModelError, match="a token of its own"):
        scorer(tmp_path).fingerprint()


def test_a_tokenizer_that_knows_no_digits(tmp_path, folder):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.model").unlink()
    tokenizer = Tokenizer.from_str(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": [],
                "pre_tokenizer": {"type": "WhitespaceSplit"},
                "normalizer": None,
                "post_processor": None,
                "decoder": None,
                "truncation": None,
                "padding": None,
                "model": {
                    "type": "WordLevel",
                    "vocab": {"<unk>": 0, "You": 1},
                    "unk_token": "<unk>",
                },
            }
        )
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match="six different ones"):
        scorer(tmp_path).fingerprint()


def test_no_tokenizer_at_all(tmp_path):
    write_model(tmp_path)
    with pytest.raises(ModelError, match="tokenizer"):
        scorer(tmp_path).fingerprint()


def test_a_model_that_changes_its_logits_after_the_head(tmp_path):
    write_sentencepiece(tmp_path)
    write_model(tmp_path, "Granite", logits_scaling=8.0)
    with pytest.raises(ModelError, match="changes its logits after lm_head"):
        scorer(tmp_path).score([("a", "b")])


def test_bin_weights_only_where_they_are_allowed(tmp_path, folder):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="allow_bin=True"):
        scorer(tmp_path).score(PAIRS)
    np.testing.assert_allclose(
        scorer(tmp_path, allow_bin=True).score(PAIRS), scorer(folder).score(PAIRS), atol=1e-6
    )


def limit_memory(monkeypatch, most_tokens):
    """Let the device have room for batches of `most_tokens` tokens; return the sizes that fail."""
    run, failed = PackedForward.run, []

    def small(self, texts, tokens):
        if tokens > most_tokens:
            failed.append(tokens)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, texts, tokens)

    monkeypatch.setattr(PackedForward, "run", small)
    return failed


def test_what_memory_has_room_for_is_learnt_once_for_all_pieces(folder, monkeypatch):
    pairs = [(f"Write {number}.", "Yes.") for number in range(10, 50)]
    expected = scorer(folder).score(pairs)
    monkeypatch.setattr("deita_tasks.models.component.prefetch", partial(prefetch, size=8))
    causal_lm = scorer(folder)
    causal_lm.score([])  # loads it, with memory enough for the proofs
    failed = limit_memory(monkeypatch, 256)
    np.testing.assert_allclose(causal_lm.score(pairs), expected, atol=1e-5)
    assert failed == [1024, 512]
    causal_lm.score(pairs)  # the next shard
    assert failed == [1024, 512]


def test_a_problem_belongs_to_its_own_pair_whatever_its_piece(folder, monkeypatch):
    pairs = [("a", "b")] * 7 + [("a", words(150, "r"))] + [("c", "d")] * 3
    expected = scorer(folder).score(pairs)
    monkeypatch.setattr("deita_tasks.models.component.prefetch", partial(prefetch, size=3))
    causal_lm = scorer(folder)
    causal_lm.score([])
    limit_memory(monkeypatch, 128)
    measured = causal_lm.compute(pairs)
    assert measured.problems == {7: "out of memory on cpu, even alone: 256 tokens"}
    assert np.isnan(measured.values[7])
    np.testing.assert_allclose(np.delete(measured.values, 7), np.delete(expected, 7), atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "beauty"},
        {"model": ""},
        {"dtype": "int8"},
        {"max_length": 0},
        {"batch_tokens": 0},
        {"max_lenght": 3},
    ],
)
def test_wrong_options(wrong):
    with pytest.raises(UsageError):
        load_scorer("causal_lm", **{"model": "x/y", "kind": "quality", **wrong})


# ---- the component


def test_fingerprint_loads_no_weights_and_has_what_changes_a_score(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(CausalLM, "__init__", lambda *_, **__: pytest.fail("weights were loaded"))
    base = scorer(folder).fingerprint()
    assert json.loads(json.dumps(base)) == base
    assert str(folder) not in json.dumps(base)
    assert scorer(folder, batch_tokens=7).fingerprint() == base
    assert scorer(shutil.copytree(folder, tmp_path / "moved")).fingerprint() == base
    variants = [
        scorer(folder, kind="complexity"),
        scorer(folder, max_length=200),
        scorer(folder, dtype="bfloat16"),
    ]
    assert all(changed.fingerprint() != base for changed in variants)
    assert scorer(llama(tmp_path / "other", seed=1)).fingerprint() != base


def test_it_travels_without_its_weights_and_can_give_them_back(folder):
    causal_lm = scorer(folder)
    first = causal_lm.score(PAIRS)
    sent = pickle.loads(pickle.dumps(causal_lm))  # noqa: S301
    assert sent == causal_lm and sent._model._value is None
    np.testing.assert_array_equal(sent.score(PAIRS), first)
    causal_lm.release()
    assert causal_lm._model._value is None
    np.testing.assert_array_equal(causal_lm.score(PAIRS), first)
