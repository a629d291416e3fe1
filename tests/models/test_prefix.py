"""A prefix that is computed once gives the states of whole texts, and is really computed once."""

import numpy as np
import pytest
import torch

from deita_tasks.models.causal_lm import CausalLM
from deita_tasks.models.checkpoint import find_checkpoint
from deita_tasks.models.prefix import compute_prefix
from tests.support.checkpoints import reference_model, write_model

BEGINNING = list(range(3, 15))
RNG = np.random.default_rng(0)


def text(length):
    return RNG.integers(3, 600, length).tolist()


TEXTS = [
    *([*BEGINNING, *text(length)] for length in (1, 5, 30, 60, 60)),
    BEGINNING,  # nothing is left to compute
    BEGINNING[:4],
    [*BEGINNING[:-1], 20, *text(9)],  # another token just before the end
    text(40),
]
FAMILIES = {
    "Llama": {},
    "Mistral": {"sliding_window": 8},  # a window shorter than the beginning
    "Qwen3": {},
    "Qwen2": {
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 1,
    },  # the second layer alone has a window
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},  # learned positions
}


def load(folder, dtype="float32", **options):
    return CausalLM(find_checkpoint(str(folder)), dtype=dtype, device="cpu", **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_model(folder)
    return folder


def expected(folder, texts):
    model = reference_model(folder)
    with torch.no_grad():
        return torch.stack(
            [
                model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, -1]
                for ids in texts
            ]
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_whole_texts_in_every_batch(tmp_path, family):
    write_model(tmp_path, family, **FAMILIES[family])
    states = expected(tmp_path, TEXTS)
    model = load(tmp_path, prefix=BEGINNING)
    assert model.prefix is not None
    for order in (range(len(TEXTS)), range(len(TEXTS))[::-1]):
        hidden, too_much = model.last_hidden([TEXTS[i] for i in order])
        assert too_much == []
        torch.testing.assert_close(
            hidden, states[list(order)], atol=1e-5 * float(states.abs().max()), rtol=0
        )


def test_texts_beyond_the_turn_of_longrope_are_computed_by_themselves(tmp_path):
    """transformers takes a whole batch's frequencies from its longest text."""
    turn = 32
    rotary = {
        "short_factor": [1.0] * 4,
        "long_factor": [4.0, 5.0, 6.0, 7.0],
        "original_max_position_embeddings": turn,
        "factor": 8.0,
    }
    write_model(
        tmp_path, rope_parameters={"rope_type": "longrope", "rope_theta": 10_000.0, **rotary}
    )
    texts = [
        *TEXTS,
        *(text(length) for length in (turn - 1, turn, turn + 1, turn + 8)),
        [*BEGINNING, *text(turn - len(BEGINNING))],
    ]
    states = expected(tmp_path, texts)
    for prefix in ([], BEGINNING):
        model = load(tmp_path, prefix=prefix)
        assert (model.prefix is not None) == bool(prefix)
        hidden, _ = model.last_hidden(texts)
        torch.testing.assert_close(hidden, states, atol=1e-5 * float(states.abs().max()), rtol=0)


def test_only_what_follows_the_beginning_is_computed(folder):
    model = load(folder, prefix=BEGINNING)
    lengths = [model.forward.length(ids) for ids in TEXTS]
    assert lengths == [1, 5, 30, 60, 60, *map(len, TEXTS[5:])]


def test_a_text_that_comes_several_times_is_computed_once(folder):
    model = load(folder)
    computed = []
    run = model.forward.run
    model.forward.run = lambda texts, tokens: computed.extend(texts) or run(texts, tokens)
    hidden, _ = model.last_hidden([TEXTS[0], TEXTS[8], TEXTS[0], [], TEXTS[0]])
    assert sorted(computed) == sorted([tuple(TEXTS[0]), tuple(TEXTS[8])])
    assert torch.equal(hidden[0], hidden[2]) and torch.equal(hidden[0], hidden[4])
    assert not torch.equal(hidden[0], hidden[1])
    assert hidden[3].isnan().all()


def test_a_recurrent_model_computes_whole_texts(tmp_path):
    write_model(tmp_path, "Mamba", state_size=8)
    model = load(tmp_path, prefix=BEGINNING)
    assert model.prefix is None
    torch.testing.assert_close(
        model.last_hidden(TEXTS)[0], load(tmp_path).last_hidden(TEXTS)[0], atol=1e-5, rtol=0
    )


@pytest.fixture(scope="module")
def outlier(tmp_path_factory):
    """As in large decoders: a component of the states that is far greater than the others, and
    hardly differs between texts.
    """
    folder = tmp_path_factory.mktemp("outlier")
    model = write_model(folder)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 30
        model.model.norm.weight[0] = 5
    model.save_pretrained(folder)
    states = expected(folder, TEXTS)
    assert states[:, 0].abs().min() > 5 * states[:, 1:].abs().max()
    return folder


def change_prefix(monkeypatch, keys=1.0, values=1.0):
    def changed(*arguments):
        prefix = compute_prefix(*arguments)
        return prefix._replace(
            keys=[keys * layer for layer in prefix.keys],
            values=[values * layer for layer in prefix.values],
        )

    monkeypatch.setattr("deita_tasks.models.forward.compute_prefix", changed)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_right_beginning_is_used_in_bfloat16(tmp_path, family):
    write_model(tmp_path, family, **FAMILIES[family])
    assert load(tmp_path, "bfloat16", prefix=BEGINNING).prefix is not None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_beginning_is_judged_by_all_components(outlier, monkeypatch, dtype):
    assert load(outlier, dtype, prefix=BEGINNING).prefix is not None
    change_prefix(monkeypatch, values=1.5)
    assert load(outlier, dtype, prefix=BEGINNING).prefix is None


def test_a_prefix_that_changes_states_is_not_used(folder, monkeypatch):
    change_prefix(monkeypatch, keys=1.1)
    model = load(folder, prefix=BEGINNING)
    assert model.prefix is None
    torch.testing.assert_close(model.last_hidden(TEXTS)[0], load(folder).last_hidden(TEXTS)[0])
