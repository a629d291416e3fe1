"""IFD and perplexity, held to the formula: one text at a time, the whole model, float64."""

import math

import numpy as np
import pytest
import torch

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.language_model import MeanLosses
from tests.support.checkpoints import FAMILIES, reference_ids, reference_model

PAIRS = [
    ("Write a poem.", "The sea is old,\nthe sand is cold."),
    ("Sort it. " * 4, "1 2 3 4 5 6 12 42"),
    ("日本語", "naïve — ﬁ №"),
    ("", "hello there"),
]


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def family(request, tmp_path_factory):
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


def scorer(name, folder, **options):
    return load_scorer(name, model=str(folder), device="cpu", **options)


def mean_loss(model, ids, start):
    """The mean of -log p(token | those before) of the tokens from `start` on."""
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -np.mean([float(logs[place - 1, ids[place]]) for place in range(start, len(ids))])


def expected_values(folder, pairs, limit=1024):
    """IFD and perplexity of each pair, by the authors' rule."""
    model = reference_model(folder)
    for instruction, response in pairs:
        start = len(reference_ids(folder, f"{instruction}\n"))
        whole = reference_ids(folder, f"{instruction}\n{response}")[:limit]
        alone = reference_ids(folder, response)[: limit - start + 1]
        perplexity = math.exp(mean_loss(model, whole, start))
        yield perplexity / math.exp(mean_loss(model, alone, 1)), perplexity


def test_values_are_the_formula_s_whatever_is_beside(family):
    expected = np.array(list(expected_values(family, PAIRS)))
    assert np.ptp(expected[:, 0]) > 0.3  # else equal values would pass for right ones
    for name, values in zip(("ifd", "perplexity"), expected.T, strict=True):
        found = scorer(name, family).compute(PAIRS)
        np.testing.assert_allclose(found.values, values, rtol=1e-5)
        assert not found.problems and not found.truncated_tokens.any()
        alone = [scorer(name, family).compute([pair]).values[0] for pair in PAIRS]
        among_others = scorer(name, family).compute((PAIRS * 20)[::-1]).values
        assert found.values.tolist() == alone == among_others[: -len(PAIRS) - 1 : -1].tolist()


def test_a_long_response_is_cut_in_both_texts(family):
    pair = (PAIRS[0][0], PAIRS[0][1] * 3)
    whole = len(reference_ids(family, "\n".join(pair)))
    [(ifd, perplexity)] = expected_values(family, [pair], limit=30)
    for name, value in (("ifd", ifd), ("perplexity", perplexity)):
        found = scorer(name, family, max_length=30).compute([pair])
        np.testing.assert_allclose(found.values, [value], rtol=1e-5)
        assert found.truncated_tokens.tolist() == [whole - 30]
    conversation = Conversation((Turn("user", pair[0]), Turn("assistant", pair[1])))
    forecast = scorer("perplexity", family, max_length=30).forecast([conversation])
    assert (forecast.tokens.tolist(), forecast.truncated_tokens.tolist()) == ([30], [whole - 30])


def test_a_pair_without_a_value_says_why(family):
    instruction = len(reference_ids(family, "Write a poem.\n"))
    pairs = [("Write a poem.", ""), PAIRS[0], PAIRS[3]]
    found = scorer("ifd", family, max_length=instruction).compute(pairs)
    assert np.isnan(found.values).tolist() == [True, True, False]
    assert found.problems == {
        0: "its response has too few tokens to predict one",
        1: f"its instruction takes {instruction} tokens and leaves none of {instruction} to the "
        "response",
    }


class HalvesAndQuarters:
    """A model that gives each token the probability 1/2, or 1/4 at even places."""

    device = "cpu"

    def token_losses(self, texts):
        losses = [[math.log(4 if place % 2 == 0 else 2) for place in text[1:]] for text in texts]
        return [np.array(row, np.float32) for row in losses], []


def test_the_formula_by_hand():
    """Tokens 3 and 4 after the instruction 0, 1, 2: the mean of log 2 and log 4 is log sqrt(8)."""
    model = HalvesAndQuarters()
    whole = MeanLosses.of(model, [[0, 1, 2, 3, 4]], [3]).values
    assert math.exp(whole[0]) == pytest.approx(math.sqrt(8))
    alone = MeanLosses.of(model, [[3, 4]], [1]).values
    assert math.exp(whole[0] - alone[0]) == pytest.approx(math.sqrt(8) / 4)
    assert math.isnan(MeanLosses.of(model, [[]], [1]).values[0])
