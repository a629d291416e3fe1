"""A base model becomes a scorer: what it is trained on, and that `causal_lm` takes the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deita_tasks.errors import UsageError
from deita_tasks.evolving.fit import encode_scored, scorer_encoder, write_scorer
from deita_tasks.finetuning.examples import EncodedRow, LeftOut, build_training_set
from deita_tasks.finetuning.trained import Settings, prepare_sft, train_prepared
from deita_tasks.models.chat import IGNORED
from deita_tasks.models.chat_tokenizer import BaseName, load_tokenizer
from deita_tasks.recipes import RECIPES, Lora
from deita_tasks.scoring.causal_lm import CausalLMScorer
from deita_tasks.scoring.prompts import render
from tests.support.checkpoints import reference_ids

PAIRS = [(f"Write a {word} text", "") for word in ("plain", "careful", "formal")]
SCORES = [1, 3, 6]


def test_a_row_is_the_prompt_of_causal_lm_and_one_digit(base: BaseName, base_folder: Path) -> None:
    encoder = scorer_encoder("complexity", base, 128)
    rows = encode_scored(encoder, ["a", "b", "c"], PAIRS, SCORES)
    for row, pair, score in zip(rows, PAIRS, SCORES, strict=True):
        assert isinstance(row, EncodedRow)
        prompt = render("complexity", *pair).text
        assert row.whole.input_ids == reference_ids(base_folder, f"{prompt}{score}")
        assert row.whole.labels[:-1] == [IGNORED] * (len(row.whole.input_ids) - 1)
        assert row.whole.labels[-1] == reference_ids(base_folder, f"{prompt}{score}")[-1]


def test_a_long_text_is_cut_in_its_middle_and_keeps_the_digit(base: BaseName) -> None:
    encoder = scorer_encoder("complexity", base, 128)
    (row,) = encode_scored(encoder, ["a"], [("word " * 400, "")], [4])
    assert not isinstance(row, LeftOut)
    assert len(row.whole.input_ids) == 128
    assert row.whole.labels[-1] == encoder.digits[3]


def test_a_window_beyond_the_model_s_is_an_error(base: BaseName) -> None:
    with pytest.raises(UsageError, match=r"max_length = 4,096: .* reads 512 tokens"):
        scorer_encoder("complexity", base, 4096)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, Lora(rank=8, alpha=16, dropout=0.0)], ids=["full", "lora"])
def test_the_trained_scorer_is_one_that_causal_lm_takes(
    lora: Lora | None, base: BaseName, tmp_path: Path
) -> None:
    encoder = scorer_encoder("complexity", base, 128)
    names = [f"{number:03}" for number in range(48)]
    rows = encode_scored(encoder, names, PAIRS * 16, SCORES * 16)
    values = {"epochs": 1 if lora else 16, "learning_rate": 5e-3, "batch_size": 8, "lora": lora}
    recipe = RECIPES["cpu"].sft.model_copy(update={**values, "max_length": 128})
    settings = Settings(str(tmp_path / "store"), device="cpu")
    data = build_training_set(rows, 128)
    preparation = prepare_sft(base, data, load_tokenizer(base), recipe, settings)
    model = train_prepared(settings.store, preparation.job.address, None, lambda *_: None)
    assert model.is_adapter == (lora is not None)
    folder = tmp_path / "scorer"
    folder.mkdir()
    write_scorer(folder, model, settings.store, encoder)
    assert not list(folder.glob("adapter_*"))
    scorer = CausalLMScorer(kind="complexity", model=str(folder), device="cpu")
    assert scorer.encoder.tokenize(PAIRS) == encoder.tokenize(PAIRS)
    scores = scorer.score(PAIRS)
    alone = np.concatenate([scorer.score([pair]) for pair in PAIRS])
    np.testing.assert_array_equal(scores, alone)
    if lora is None:
        assert scores[0] < scores[1] < scores[2]
