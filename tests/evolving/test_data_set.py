"""The data set of judged chains, and how scores agree with the judge."""

from __future__ import annotations

import numpy as np
import pytest

from deita_tasks.errors import InputError
from deita_tasks.evolving.agreement import (
    agreement,
    calibration,
    compare_with_words,
    is_above_words,
    rank_correlation,
)
from deita_tasks.evolving.chains import Chain, Variant
from deita_tasks.evolving.data_set import DataFacts, data_table, hold_out, released_rows

FACTS = DataFacts(
    rewrite_prompts="r", judge_prompt="j", rewrite_model="m", judge_model="n", licence="CC0-1.0"
)


def judged_chain(name: str, scores: list[int]) -> Chain:
    variants = [
        Variant(round=turn, method="m", text=f"{name} {turn}", score=score)
        for turn, score in enumerate(scores)
    ]
    return Chain(id=name, kind="quality", stratum="s", instruction="Why?", variants=variants)


CHAINS = [judged_chain(str(number), [1, 3, 6]) for number in range(10)]


def test_whole_chains_are_held_out_by_seed_in_any_order() -> None:
    chains = [chain.model_copy(update={"instruction": chain.id}) for chain in CHAINS]
    held_out = hold_out(chains, 0.2, 0)
    assert len(held_out) == 2
    assert hold_out(chains[::-1], 0.2, 0) == held_out
    assert len({frozenset(hold_out(chains, 0.2, seed)) for seed in range(20)}) > 5
    assert len(hold_out(chains[:2], 0.0, 0)) == 1
    with pytest.raises(InputError, match="1 chains are judged, of 1 instructions; expected at lea"):
        hold_out(chains[:1], 0.5, 0)


def test_all_answers_to_an_instruction_are_held_out_or_none() -> None:
    chains = [chain.model_copy(update={"instruction": str(int(chain.id) // 2)}) for chain in CHAINS]
    for seed in range(10):
        held_out = hold_out(chains, 0.3, seed)
        assert len(held_out) == 4
        assert {str(int(name) ^ 1) for name in held_out} == held_out
    with pytest.raises(InputError, match="10 chains are judged, of 1 instructions"):
        hold_out(CHAINS, 0.5, 0)


def test_a_row_for_every_text_names_where_it_comes_from() -> None:
    table = data_table(CHAINS, {"3"}, FACTS)
    assert table.num_rows == 30
    rows = table.to_pylist()
    assert rows[11] == {
        "chain": "3",
        "round": 2,
        "method": "m",
        "stratum": "s",
        "instruction": "Why?",
        "response": "3 2",
        "score": 6,
        "split": "held_out",
        **FACTS.to_dict(),
    }
    assert sum(row["split"] == "held_out" for row in rows) == 3


def test_the_released_form_is_the_scorer_s_prompt_and_a_digit() -> None:
    assert released_rows(CHAINS[:1])[1] == {
        "id": "0-1",
        "conversations": [
            {
                "from": "human",
                "value": "You are a helpful assistant. Please identify the quality score of the "
                "Response corresponding to the Question. \n #Question#:\nWhy?\n#Response#:\n0 1 \n"
                "##Quality: ",
            },
            {"from": "gpt", "value": "3"},
        ],
    }


def test_rank_correlations_across_and_within_chains() -> None:
    """By hand: 1 - 6 * sum of squared rank differences / (n * (n^2 - 1))."""
    values = np.array([1.0, 2.0, 3.0, 10.0, 30.0, 20.0])
    judged = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    found = agreement("x", values, judged, ["a"] * 3 + ["b"] * 3)
    assert found.across == pytest.approx(1 - 6 * 2 / (6 * 35))
    assert found.within == pytest.approx((1 + 0.5) / 2)
    assert found.chains == 2
    assert rank_correlation(values, np.ones(6)) is None
    constant = agreement("x", np.ones(6), judged, ["a"] * 3 + ["b"] * 3)
    assert (constant.across, constant.within) == (None, 0.0), "it has ranked nothing"


def test_a_scorer_that_is_not_above_words_says_so() -> None:
    judged = np.array([1.0, 2.0, 3.0, 4.0])
    groups = ["a", "a", "b", "b"]
    words = agreement("words", np.array([1.0, 2.0, 4.0, 3.0]), judged, groups)
    good = agreement("scorer", judged, judged, groups)
    assert is_above_words(good, words)
    assert "NOT" not in compare_with_words(good, words)
    assert not is_above_words(words, good)
    assert compare_with_words(words, words) == (
        "Rank correlation with the judge: over all texts 0.800, NOT above that of the number of "
        "words (0.800); within a chain 0.000, NOT above that of the number of words (0.000)."
    )


def test_calibration_is_by_judged_score() -> None:
    values = np.array([1.0, 2.0, 3.0, 5.0])
    points = calibration(values, np.array([1.0, 1.0, 1.0, 4.0]))
    assert [(point.judged, point.texts, point.mean) for point in points] == [(1, 3, 2), (4, 1, 5)]
    assert (points[0].low, points[0].high) == pytest.approx((1.2, 2.8))
